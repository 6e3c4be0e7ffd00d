"""Upstream: texts that were broken on the way here."""

from __future__ import annotations

from holdfast.domain.captures import Capture
from holdfast.domain.diagnosis.case import Case, Exclusion, Finding
from holdfast.domain.diagnosis.shares import share_change
from holdfast.domain.statistics.confidence import two_shares
from holdfast.domain.symptoms import CUT, Lexicon, breaks, cut_length, shows

BREAK_MARGIN = 0.05
"""By how much, at least and surely, the share of texts with a sign must exceed the reference's."""
MOST_SIGNS = 3


def broken(case: Case, lexicon: Lexicon) -> Finding | None:
    """The signs that surely more texts show than before, the surest first; None while there is none."""
    texts = [c.text for c in case.recent]
    known = case.reference.calibration.texts or case.reference.fitted.texts
    now, before = breaks(texts, lexicon), breaks(known, lexicon)
    at = cut_length(texts, lexicon)
    before[CUT] = max(before[CUT], sum(len(text) == at for text in known))  # the known texts may have a common length too
    surely = {sign: two_shares(now[sign], len(texts), before[sign], len(known))[1] for sign in now}
    found = [sign for sign in sorted(surely, key=lambda s: (-surely[s], s)) if surely[sign] > BREAK_MARGIN][:MOST_SIGNS]
    if not found:
        return None
    told = " and ".join(f"{now[s] / len(texts):.0%} are {s} ({before[s] / len(known):.0%} before)" for s in found)
    sentence = (
        f"of {len(texts)} recent inputs {told}; whatever sends them is likelier broken than the world changed, "
        "and training on them would not help"
    )
    return Finding(
        cause="upstream break", sentence=sentence, evidence={f"share {sign}": now[sign] / len(texts) for sign in now if now[sign]},
        changes=tuple(share_change(sign, (now[sign], len(texts)), (before[sign], len(known))) for sign in found),
        exclusions=tuple(Exclusion(since_seq=case.onset_seq, sign=sign, char_count=at if sign == CUT else 0) for sign in found),
    )  # fmt: skip


def unbroken(recent: list[Capture], finding: Finding, lexicon: Lexicon) -> list[Capture]:
    """The captures that show none of the signs found."""
    return [c for c in recent if not any(shows(e.sign, c.text, lexicon, char_count=e.char_count) for e in finding.exclusions)]
