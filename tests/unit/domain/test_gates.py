"""Gates: better passes, worse fails, and what cannot be decided never passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from holdfast.domain import gates
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.gates import Verdict, pick_rung
from holdfast.domain.ids import SnapshotDigest
from holdfast.domain.records import digest_of, from_plain, to_plain
from holdfast.domain.retraining import HoldoutScores
from holdfast.domain.tasks import RetrainingPolicy
from holdfast.testing.builders import LABELS, a_contract, a_digest, a_snapshot_row
from holdfast.testing.clock import NOON

CONTRACT = a_contract(floor=0.8)


def _rows(past: int = 400, recent: int = 200) -> tuple[SnapshotRow, ...]:
    return tuple(
        a_snapshot_row(n, text=f"text {n}", label=LABELS[n % len(LABELS)], split="holdout", period="past" if n < past else "recent")
        for n in range(past + recent)
    )


def _scores(rows: Sequence[SnapshotRow], name: str, *, past: float, recent: float, seed: int = 0) -> HoldoutScores:
    random = np.random.default_rng(seed)
    right = [random.random() < (past if row.period == "past" else recent) for row in rows]
    said = [row.label if fine else LABELS[(LABELS.index(row.label) + 1) % len(LABELS)] for row, fine in zip(rows, right, strict=True)]
    return HoldoutScores(
        digest=a_digest(name), row_ids=tuple(r.row_id for r in rows), predictions=tuple(said), confidences=(0.9,) * len(rows)
    )


def _judge(rows: Sequence[SnapshotRow], candidate: HoldoutScores, champion: HoldoutScores | None) -> Verdict:
    return gates.judge(
        CONTRACT, rows=rows, candidate=candidate, champion=champion, snapshot_digest=SnapshotDigest(digest_of("rows")),
        policy_digest=digest_of(CONTRACT), now=NOON,
    )  # fmt: skip


def _outcome(verdict: Verdict, name: str) -> str:
    return next(c.outcome for c in verdict.criteria if c.name == name)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("sealed", [(), ("where is the parcel with my books now",)])
def test_a_candidate_that_learnt_from_a_held_out_row_or_nearly_fails_however_good_it_is(
    split: Literal["train", "validation"], sealed: tuple[str, ...]
) -> None:
    text = "Where is the parcel with my books, now?" if sealed else "text 3"
    rows = (*_rows(), a_snapshot_row(10_000, text=text, split=split))
    held = rows[:-1]
    good, old = _scores(held, "new", past=0.97, recent=0.95), _scores(held, "old", past=0.97, recent=0.55)
    verdict = gates.judge(
        CONTRACT, rows=rows, candidate=good, champion=old, snapshot_digest=SnapshotDigest(digest_of("rows")),
        policy_digest=digest_of(CONTRACT), now=NOON, sealed=sealed,
    )  # fmt: skip
    assert (verdict.outcome, _outcome(verdict, "integrity")) == ("fail", "fail")
    assert "1 row(s) that it trained on" in verdict.reason


def test_a_candidate_that_mends_the_recent_and_keeps_the_past_passes() -> None:
    rows = _rows()
    verdict = _judge(rows, _scores(rows, "new", past=0.97, recent=0.95), _scores(rows, "old", past=0.97, recent=0.55, seed=0))
    assert verdict.outcome == "pass", verdict.reason
    assert [c.name for c in verdict.criteria] == [
        "integrity", "quality floor", "not worse on past traffic", "better where it hurt", "no slice left behind",
    ]  # fmt: skip
    assert verdict.expires_at > verdict.judged_at == NOON


def test_an_equal_candidate_does_not_pass() -> None:
    rows = _rows()
    same = _scores(rows, "old", past=0.9, recent=0.9)
    assert _outcome(_judge(rows, replace(same, digest=a_digest("new")), same), "better where it hurt") == "need more"


def test_a_worse_candidate_fails() -> None:
    rows = _rows()
    assert _judge(rows, _scores(rows, "new", past=0.5, recent=0.4), _scores(rows, "old", past=0.95, recent=0.9)).outcome == "fail"


def test_forgetting_the_past_fails_however_good_the_recent_rows_are() -> None:
    rows = _rows()
    verdict = _judge(rows, _scores(rows, "new", past=0.6, recent=0.99), _scores(rows, "old", past=0.97, recent=0.5))
    assert _outcome(verdict, "not worse on past traffic") == "fail"
    assert verdict.outcome == "fail"


def test_below_the_floor_fails_though_it_is_better_than_the_champion() -> None:
    rows = _rows()
    verdict = _judge(rows, _scores(rows, "new", past=0.9, recent=0.6), _scores(rows, "old", past=0.9, recent=0.2))
    assert _outcome(verdict, "quality floor") == "fail"


def test_a_label_that_is_surely_lost_fails_though_the_mean_is_better() -> None:
    rows = _rows()
    good = _scores(rows, "new", past=0.99, recent=0.99)
    lost = tuple("returns" if row.label == "billing" else said for row, said in zip(rows, good.predictions, strict=True))
    verdict = _judge(rows, replace(good, predictions=lost), _scores(rows, "old", past=0.9, recent=0.2))
    assert _outcome(verdict, "no slice left behind") == "fail"
    assert next(s for s in verdict.slices if s.name == "billing").outcome == "fail"


def test_a_first_version_needs_the_floor_alone() -> None:
    rows = _rows()
    assert _judge(rows, _scores(rows, "new", past=0.95, recent=0.95), None).outcome == "pass"
    assert _judge(rows, _scores(rows, "new", past=0.6, recent=0.6), None).outcome == "fail"
    verdict = _judge(rows, _scores(rows, "new", past=0.8, recent=0.8), None)
    assert verdict.outcome == "need more"
    assert verdict.criteria[-1].rows_needed > 0


@pytest.mark.parametrize(("past", "recent"), [(400, 0), (0, 400), (400, 49), (49, 400), (0, 0), (10, 10)])
def test_too_few_rows_of_either_period_never_pass(past: int, recent: int) -> None:
    rows = _rows(past, recent)
    verdict = _judge(rows, _scores(rows, "new", past=0.97, recent=0.97), _scores(rows, "old", past=0.97, recent=0.5))
    assert verdict.outcome == "need more"


def test_rows_that_were_not_held_out_are_not_looked_at() -> None:
    held, trained = _rows(), tuple(replace(row, row_id=row.row_id + 10_000, split="train") for row in _rows())
    verdict = _judge((*trained, *held), _scores(held, "new", past=0.97, recent=0.97), None)
    assert verdict.criteria[1].row_count == 600


Damage = Literal["missing row", "foreign row", "doubled row", "short column", "nan", "above one"]


@pytest.mark.parametrize("damage", ["missing row", "foreign row", "doubled row", "short column", "nan", "above one"])
@pytest.mark.parametrize("whose", ["candidate", "champion"])
def test_damaged_scores_are_undecided(damage: Damage, whose: str) -> None:
    rows = _rows()
    fine = {"candidate": _scores(rows, "new", past=0.99, recent=0.99), "champion": _scores(rows, "old", past=0.99, recent=0.3)}
    bad = fine[whose]
    ids, confidences = bad.row_ids, bad.confidences
    broken = {
        "missing row": replace(bad, row_ids=ids[1:], predictions=bad.predictions[1:], confidences=confidences[1:]),
        "foreign row": replace(bad, row_ids=(99_999, *ids[1:])),
        "doubled row": replace(bad, row_ids=(ids[1], *ids[1:])),
        "short column": replace(bad, predictions=bad.predictions[1:]),
        "nan": replace(bad, confidences=(float("nan"), *confidences[1:])),
        "above one": replace(bad, confidences=(1.5, *confidences[1:])),
    }[damage]
    given = {**fine, whose: broken}
    verdict = _judge(rows, given["candidate"], given["champion"])
    assert verdict.outcome == "need more"
    assert [c.name for c in verdict.criteria] == ["integrity"]


def test_the_same_inputs_give_the_same_verdict_and_it_survives_storage() -> None:
    rows = _rows()
    candidate, champion = _scores(rows, "new", past=0.97, recent=0.95), _scores(rows, "old", past=0.97, recent=0.5)
    verdict = _judge(rows, candidate, champion)
    assert _judge(tuple(reversed(rows)), candidate, champion) == verdict
    assert from_plain(Verdict, to_plain(verdict)) == verdict


def test_a_candidate_no_better_than_the_champion_passes_hardly_ever() -> None:
    rows, passed = _rows(200, 100), 0
    for seed in range(60):
        new = _scores(rows, "new", past=0.9, recent=0.9, seed=2 * seed)
        passed += _judge(rows, new, _scores(rows, "old", past=0.9, recent=0.9, seed=2 * seed + 1)).outcome == "pass"
    assert passed <= 3


@pytest.mark.parametrize(("policy", "lora_right", "rung"), [
    ("smallest", 0.99, "lora"), ("smallest", 0.82, "head"), ("smallest", 0.5, "head"), ("lora", 0.5, "lora"), ("head", 0.99, "head"),
])  # fmt: skip
def test_the_rung_is_the_smallest_that_suffices_unless_the_contract_names_one(
    policy: Literal["smallest", "head", "lora"], lora_right: float, rung: str
) -> None:
    rows = _rows()
    head, lora = _scores(rows, "head", past=0.8, recent=0.8), _scores(rows, "lora", past=lora_right, recent=lora_right, seed=1)
    assert pick_rung(RetrainingPolicy(rung=policy), head, lora, rows) == rung


def test_without_a_lora_rung_or_with_damaged_scores_the_head_is_taken() -> None:
    rows = _rows()
    head = _scores(rows, "head", past=0.5, recent=0.5)
    assert pick_rung(RetrainingPolicy(rung="lora"), head, None, rows) == "head"
    broken = replace(_scores(rows, "lora", past=1.0, recent=1.0), row_ids=(7,) * len(rows))
    assert pick_rung(RetrainingPolicy(), head, broken, rows) == "head"
