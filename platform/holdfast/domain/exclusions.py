"""Exclusions: labelled captures that no training may use, because a diagnosis found them broken or their labels doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.domain.alerts import Alert
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.diagnosis import Exclusion
from holdfast.domain.symptoms import Lexicon, lexicon_of, shows


def admitted(labelled: Iterable[LabelledCapture], alerts: Iterable[Alert], known_texts: Sequence[str]) -> list[LabelledCapture]:
    """The labelled captures that no alert excludes. An alert that a person called a false alarm excludes nothing.

    Args:
        labelled: of one task.
        alerts: of the same task, in any state.
        known_texts: the texts of the reference window, which say what an unbroken text is made of.
    """
    exclusions = [e for alert in alerts if alert.state != "false alarm" for e in alert.diagnosis.exclusions]
    rows = list(labelled)
    if not exclusions:
        return rows
    lexicon = lexicon_of(known_texts)
    return [row for row in rows if not any(excludes(e, row, lexicon) for e in exclusions)]


def excludes(exclusion: Exclusion, row: LabelledCapture, lexicon: Lexicon) -> bool:
    """Whether a labelled capture came since the onset and shows the sign, or has its label from the source."""
    if row.capture.seq < exclusion.since_seq:
        return False
    if exclusion.source:
        return row.label.source == exclusion.source
    return shows(exclusion.sign, row.capture.text, lexicon, char_count=exclusion.char_count)
