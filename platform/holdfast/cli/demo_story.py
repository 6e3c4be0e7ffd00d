"""The story of the demonstration, told against a real, running home: from a contract to a loop that closes by itself.

The story presses what a person would press once: create the task, add data, train, promote the first version. From the first
request on it only sends traffic and labels, and looks; what happens then the loop does alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast.cli.demo_patience import LOOK_S, HomeStopped, Patience
from holdfast.cli.demo_report import AFTER_EVENTS, Facts, StoryReport, report_of
from holdfast.cli.demo_traffic import LateLabels, Traffic
from holdfast.cli.demo_view import StoryView
from holdfast.cli.demo_world import World, synthetic
from holdfast.client import Client
from holdfast.errors import GateRefused, HoldfastError, PartUnavailable, TrainingFailed

MOMENTS = ("serving", "before change", "alert", "training", "judged", "promoted", "swapped")
STEPS = (
    "create the task from its contract", "audit and add the data", "train version 1", "gate", "promote over REST", "serve",
    "traffic", "the world changes", "alert and diagnosis", "retraining", "verdict", "promotion", "hot swap", "recovery", "accounts",
)  # fmt: skip
Json = dict[str, Any]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryPlan:
    """The size of a story."""

    seed: int = 7
    history_rows: int = 1200
    before_events: int = 500
    after_events: int = 2 * AFTER_EVENTS
    """Events of the new version before the story ends; half of them would do to prove it."""
    per_second: float = 25.0
    patience_s: float = 600.0
    """Longest wait for any one step. A killed process comes back well within it."""


class Story:
    """One story. ``on_moment`` is called at each of ``MOMENTS``, so that a test can do harm there; without ``is_up`` it ends early.

    Told in ``world``; without one in the synthetic world of the plan's seed and sizes.
    """

    def __init__(
        self, client: Client, view: StoryView, plan: StoryPlan = StoryPlan(),
        on_moment: Callable[[str], None] = lambda name: None, *, is_up: Callable[[], bool] = lambda: True, world: World | None = None,
    ) -> None:  # fmt: skip
        self.client, self.view, self.plan, self._on_moment = client, view, plan, on_moment
        self._patience = Patience(plan.patience_s, is_up)
        self.world = world or synthetic(plan.seed, plan.history_rows, plan.before_events)
        self.task = ""
        self.traffic: Traffic | None = None
        self._labels: LateLabels | None = None
        self._first = ""
        self._changed = False

    def run(self) -> StoryReport:
        """Tell it to its end. Raises GateRefused, TrainingFailed, PartUnavailable when a step does not come to pass, HomeStopped."""
        began = time.monotonic()
        self.view.open(STEPS)
        try:
            self._prepare()
            self._first = self._first_version()
            traffic, labels = self._open_traffic()
            self._until_change(traffic)
            alert, retraining, verdict = self._watch_the_loop()
            self._recover(traffic)
            traffic.stop()
            labels.stop()
            return self._account(traffic, labels, alert=alert, retraining=retraining, verdict=verdict, began=began)
        except HomeStopped:
            if self.traffic is not None:
                self.traffic.give_up()
            raise
        finally:
            self.stop()
            self.view.close()

    def stop(self) -> None:
        """End traffic and labels."""
        if self.traffic is not None:
            self.traffic.stop()
        if self._labels is not None:
            self._labels.stop()

    def _prepare(self) -> None:
        with self._step("create the task from its contract") as note:
            contract = self.world.plain_contract
            taken = {found["task"] for found in self._patience.insist(self.client.tasks)}
            self.task = _free_name(contract["task"], taken)
            self._patience.insist(lambda: self.client.create_task({**contract, "task": self.task}))
            note(self.task)
        with self._step("audit and add the data") as note:
            rows = self.world.history
            audit = self._patience.insist(lambda: self.client.add_dataset(self.task, rows, dry_run=True))["audit"]
            added = self._patience.insist(lambda: self.client.add_dataset(self.task, rows))["snapshot"]
            note(f"{added['row_count']} rows, {added['holdout_past_count']} held out; {len(audit['warnings'])} warnings")

    def _first_version(self) -> str:
        with self._step("train version 1") as note:
            asked = self._patience.insist(lambda: self.client.request_retraining(self.task, reason="first version", idempotency_key="demo"))
            done = self._wait_for(lambda: self._judged(asked["retraining_id"], note), "the first training")
            note(f"trained in {done['train_seconds']:.0f} s")
        with self._step("gate") as note:
            verdict = self._patience.insist(lambda: self.client.verdict(done["verdict_id"]))
            note(verdict["outcome"])
            if verdict["outcome"] != "pass":
                raise GateRefused(
                    digest=done["candidate_digest"], task=self.task, reason=verdict, remedy="This should not happen; report it."
                )
        with self._step("promote over REST") as note:
            digest = str(done["candidate_digest"])
            made = self._patience.insist(
                lambda: self.client.promote(self.task, adapter_digest=digest, reason="the first version of the story")
            )
            note(f"generation {made['generation']}")
        with self._step("serve") as note:
            self._wait_for(lambda: self._answers(digest), "the first answer")
            note(f"answered by {digest[7:19]}")
        self._on_moment("serving")
        return digest

    def _judged(self, retraining_id: str, note: Callable[[str], None]) -> Json | None:
        found = self.client.retraining(retraining_id)
        note(f"{found['state']} {found['progress']:.0%}")
        if found["state"] in ("failed", "cancelled", "refused"):
            raise TrainingFailed(key=retraining_id, reason=found["error"], log="logs/worker.log")
        return found if found["verdict_id"] else None

    def _answers(self, digest: str) -> bool:
        """A probe under one request id: however often it is sent, it is one capture. It is counted among those sent."""
        return bool(self.client.predict(self.task, self.world.probe, request_id=f"{self.task}-probe")["adapter_digest"] == digest)

    def _open_traffic(self) -> tuple[Traffic, LateLabels]:
        plan = self.plan
        traffic = self.traffic = Traffic(self.client, self.task, self.world, run=self.task, per_second=plan.per_second)
        labels = self._labels = LateLabels(self.client, self.task, traffic, run=self.task, seed=plan.seed)
        traffic.start()
        labels.start()
        return traffic, labels

    def _until_change(self, traffic: Traffic) -> None:
        with self._step("traffic") as note:
            note(f"{self.world.before_events} texts of the old world, {self.plan.per_second:.0f} a second")
            self._wait_for(lambda: self._share_done(0.8), "traffic before the change")
            self._on_moment("before change")
            self._wait_for(lambda: any(a.ticket.changed for a in traffic.since(max(0, traffic.answered_count - 50))), "the change")
            self._changed = True
        self.view.begin("the world changes")
        self.view.done("the world changes", self.world.changes)

    def _share_done(self, share: float) -> bool:
        return self.traffic is not None and self.traffic.answered_count >= share * self.world.before_events

    def _watch_the_loop(self) -> tuple[Json, Json, Json]:
        """From the alert to the swap. Nothing is pressed: this only looks."""
        with self._step("alert and diagnosis") as note:
            alert = self._wait_for(lambda: self._newest(self.client.alerts(self.task)), "an alert")
            note(f"{alert['diagnosis']['cause']} ({', '.join(alert['monitors'])})")
            self._on_moment("alert")
        with self._step("retraining") as note:
            retraining = self._wait_for(lambda: self._loops_retraining(("training", "trained", "judged", "promoted"), note), "a retraining")
            self._on_moment("training")
            retraining = self._wait_for(lambda: self._loops_retraining(("judged", "promoted"), note), "a candidate")
            note(f"trained on {retraining['labels_used']} new labels, {retraining['train_seconds']:.0f} s")
        with self._step("verdict") as note:
            verdict = self._patience.insist(lambda: self.client.verdict(retraining["verdict_id"]))
            note(verdict["outcome"])
            self._on_moment("judged")
        with self._step("promotion") as note:
            retraining = self._wait_for(lambda: self._loops_retraining(("promoted",), note), "the promotion")
            note("by policy, with a passing verdict")
            self._on_moment("promoted")
        with self._step("hot swap") as note:
            self._wait_for(self._swapped, "the swap")
            note(f"answered by {str(retraining['candidate_digest'])[7:19]}")
            self._on_moment("swapped")
        newest = self._patience.insist(lambda: self.client.alerts(self.task))
        return (
            next(a for a in newest if a["alert_id"] == alert["alert_id"]),
            retraining,
            self._patience.insist(lambda: self.client.verdict(retraining["verdict_id"])),
        )

    def _newest(self, alerts: Sequence[Json]) -> Json | None:
        return alerts[0] if alerts else None

    def _loops_retraining(self, states: Sequence[str], note: Callable[[str], None]) -> Json | None:
        """The newest retraining that the loop asked for, once it is in one of these states. A refused one is followed by the next."""
        asked = [r for r in self.client.retrainings(self.task) if r["alert_id"] is not None]
        if not asked:
            alerts = self.client.alerts(self.task)
            note(str(alerts[0].get("response") or "waiting for labels") if alerts else "")
            return None
        note(f"{asked[0]['state']} {asked[0]['progress']:.0%}" + (f" (attempt {len(asked)})" if len(asked) > 1 else ""))
        return asked[0] if asked[0]["state"] in states else None

    def _swapped(self) -> bool:
        assert self.traffic is not None
        return any(a.adapter_digest != self._first for a in self.traffic.since(max(0, self.traffic.answered_count - 100)))

    def _recover(self, traffic: Traffic) -> None:
        with self._step("recovery") as note:

            def enough() -> bool:
                count = sum(a.adapter_digest != self._first for a in traffic.answered)
                note(f"{count} of {self.plan.after_events} events answered by the new version")
                return count >= self.plan.after_events

            self._wait_for(enough, "answers of the new version")

    def _account(self, traffic: Traffic, labels: LateLabels, *, alert: Json, retraining: Json, verdict: Json, began: float) -> StoryReport:
        with self._step("accounts") as note:
            probe_count = 1
            expected = (traffic.answered_count + probe_count, labels.sent_count)
            view = self._wait_for(
                lambda: self._stored(*expected), "captures and labels", patience_s=60.0, last=lambda: self.client.task(self.task)
            )
            alerts = self._patience.insist(lambda: self.client.alerts(self.task))
            changed_at = min(a.answered_at for a in traffic.answered if a.ticket.changed).isoformat()
            facts = Facts(
                answered=traffic.answered, failed=traffic.failed_count, first_digest=self._first,
                champion_digest=view["assignment"]["champion"], alert=alert, retraining=retraining, verdict=verdict,
                alerts_before_change=sum(a["opened_at"] < changed_at for a in alerts),
                versions=self._patience.insist(lambda: self.client.versions(self.task)),
                captures_stored=view["capture_count"] - probe_count, labels_sent=labels.sent_count, labels_stored=view["label_count"],
                ledger_entries=self._verified(), metric=self.world.contract.metric, seconds=time.monotonic() - began,
            )  # fmt: skip
            note(f"{view['capture_count']} captures, {view['label_count']} labels")
        return report_of(facts)

    def _stored(self, captures: int, labels: int) -> Json | None:
        view = self.client.task(self.task)
        return view if (view["capture_count"], view["label_count"]) == (captures, labels) else None

    def _verified(self) -> int:
        try:
            return int(self._patience.insist(self.client.verify_ledger)["entry_count"])
        except HoldfastError:
            return 0

    def _wait_for(
        self, look: Callable[[], Found | None], what: str, *, patience_s: float | None = None, last: Callable[[], Found] | None = None
    ) -> Found:
        """What ``look`` finds; after the patience ``last`` is the answer, where there is one."""
        deadline = time.monotonic() + (patience_s or self.plan.patience_s)
        while time.monotonic() < deadline:
            self._patience.check_up()
            found = self._patience.insist(look)
            if self.traffic is not None:
                self.view.traffic(self.traffic.answered, self.traffic.failed_count)
            if found:
                return found
            time.sleep(LOOK_S)
        if last is not None:
            return self._patience.insist(last)
        raise PartUnavailable(part="the loop", reason=f"{what} did not come within {self.plan.patience_s:.0f} s")

    def _step(self, name: str) -> _StepScope:
        return _StepScope(self.view, name)


class _StepScope:
    """A step of the view, from its beginning to its end; gives the function that notes something on it."""

    def __init__(self, view: StoryView, name: str) -> None:
        self._view, self._name = view, name

    def __enter__(self) -> Callable[[str], None]:
        self._view.begin(self._name)
        return lambda words: self._view.note(self._name, words)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._view.done(self._name)


def _free_name(wanted: str, taken: set[str]) -> str:
    """The name, or with the first number that is free: a story can be told again in the same home."""
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, 1000))]
    return next(name for name in names if name not in taken)
