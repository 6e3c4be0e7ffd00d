"""Jobs that watch: new captures to the monitors, monitors to alerts, and the slow report apart from both."""

from __future__ import annotations

from holdfast.domain.ids import TaskName
from holdfast.flows import respond, watch
from holdfast_jobs.bench import Bench


def watch_all(bench: Bench) -> None:
    """Ring for every task."""
    with bench.house.unit_of_work() as uow:
        tasks = [contract.task for contract in uow.contracts.all()]
    for task in tasks:
        bench.house.doorbell.ring("holdfast.watch_task", task)


def watch_task(bench: Bench, task: str) -> None:
    """Read what is new into the monitors, then act on what they say. Both remember how far they came; again changes nothing."""
    watch.watch(bench.house, TaskName(task))
    respond.respond(bench.house, TaskName(task))
    bench.house.doorbell.ring("holdfast.report_task", task)


def report_task(bench: Bench, task: str) -> None:
    """Write the drift report of the next full window, if there is one."""
    watch.report(bench.house, TaskName(task))
