"""Judge: candidate and champion on the same held-out rows; the verdict, and its mirror in the registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.domain import gates
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import HoldoutScores, Retraining
from holdfast.flows.freeze import sealed_texts
from holdfast.ports import House, RunFacts


def judge(house: House, r: Retraining) -> Verdict:
    """The verdict on a retraining's candidate, stored with its ledger row. The same inputs give the same verdict.

    Raises NotFound, TrainingFailed when the training's result is gone.
    """
    assert r.candidate_digest is not None and r.snapshot_digest is not None, "only a trained retraining is judged"
    result = house.trainer.result(r.retraining_id)
    rows = house.snapshots.load(r.snapshot_digest)
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(r.task)
    verdict = gates.judge(
        contract,
        rows=rows,
        candidate=result.scores[r.candidate_digest],
        champion=result.scores[r.champion_digest] if r.champion_digest else None,
        snapshot_digest=r.snapshot_digest,
        policy_digest=digest_of(contract),
        now=house.clock(),
        sealed=sealed_texts(house, r.task),
    )
    with house.unit_of_work() as uow:
        uow.verdicts.put(verdict)
        body = {
            "verdict": verdict.verdict_id,
            "outcome": verdict.outcome,
            "candidate": verdict.candidate,
            "champion": verdict.champion,
            "snapshot": verdict.snapshot_digest,
            "policy": verdict.policy_digest,
            "fingerprint": digest_of(house.adapters.fingerprint(r.candidate_digest)),
            "scores": {digest: digest_of(scores) for digest, scores in result.scores.items()},
            "reason": verdict.reason,
        }
        uow.ledger.append(at=verdict.judged_at, kind="verdict.given", task=r.task, actor="gate", body=body)
        uow.commit()
    return verdict


def show(house: House, r: Retraining, verdict: Verdict) -> None:
    """Record both rungs in the tracking server and the registry, with the verdict. Idempotent.

    Raises PartUnavailable when it does not answer; the caller tries again later.
    """
    assert r.candidate_digest is not None and r.snapshot_digest is not None, "only a trained retraining is shown"
    result = house.trainer.result(r.retraining_id)
    rows = house.snapshots.load(r.snapshot_digest)
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(r.task)
        snapshot = uow.snapshots.get(r.snapshot_digest)
        versions = {rung.digest: uow.versions.get(rung.digest) for rung in result.rungs}
    for rung in result.rungs:
        judged = verdict if rung.digest == verdict.candidate else None
        version = versions[rung.digest]
        if version.registry_version is None:
            facts = RunFacts(
                retraining=r,
                contract=contract,
                snapshot=snapshot,
                rung=rung,
                version=version,
                verdict=judged,
                confusion=confusion_of(rows, result.scores[rung.digest]),
            )
            version = house.registry.record(facts, house.adapters.folder(rung.digest))
            _remember(house, version)
        if judged is not None:
            house.registry.tag_verdict(version, judged)


def _remember(house: House, version: AdapterVersion) -> None:
    with house.unit_of_work() as uow:
        stored = uow.versions.get(AdapterDigest(version.digest))
        uow.versions.put(replace(stored, run_id=version.run_id, registry_version=version.registry_version))
        uow.commit()


def confusion_of(rows: Sequence[SnapshotRow], scores: HoldoutScores) -> Mapping[str, Mapping[str, int]]:
    """True label to predicted label to number of held-out rows."""
    truth = {row.row_id: row.label for row in rows}
    table: dict[str, Counter[str]] = {}
    for row_id, predicted in zip(scores.row_ids, scores.predictions, strict=True):
        table.setdefault(truth[row_id], Counter())[predicted] += 1
    return table
