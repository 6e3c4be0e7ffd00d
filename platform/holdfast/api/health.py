"""Whether the API lives, whether it can work, and its figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.domain.ids import TaskName
from holdfast.errors import HoldfastError, PartUnavailable

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
def healthz() -> dict[str, str]:
    """Says nothing of what it depends on."""
    return {"status": "ok"}


@router.get("/readyz", summary="The database answers", responses=documented(503))
def readyz(house: HouseOf) -> dict[str, str]:
    """503 when the database does not."""
    try:
        with house.unit_of_work() as work:
            work.contracts.all()
    except HoldfastError:
        raise
    except Exception as error:
        raise PartUnavailable(part="the database", reason=type(error).__name__) from error
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse, summary="Figures in the text format of Prometheus")
def metrics(house: HouseOf) -> str:
    """Per task; only to loopback."""
    with house.unit_of_work() as work:
        tasks = [c.task for c in work.contracts.all()]
        generations = {TaskName(t): float(a.generation) for t, a in work.assignments.all().items()}
        live = {TaskName(t): float(r.generation) for t, r in work.assignments.table().routes.items()}
        unresolved = work.alerts.unresolved()
        entries = work.ledger.count()
    alerts = {t: float(sum(a.task == t for a in unresolved)) for t in tasks}
    lines = [
        *_family(
            "holdfast_captures_stored_total",
            "counter",
            "Captures in the database, shadow copies left out.",
            {t: float(house.log.count(t)) for t in tasks},
        ),
        *_family("holdfast_labels_total", "counter", "Labels stored.", {t: float(house.log.label_count(t)) for t in tasks}),
        *_family("holdfast_alerts_unresolved", "gauge", "Alerts that are open or acknowledged.", alerts),
        *_family("holdfast_assignment_generation", "gauge", "Generation that is wanted.", generations),
        *_family("holdfast_route_generation", "gauge", "Generation that the data plane follows.", live),
        "# HELP holdfast_ledger_entries_total Rows of the ledger.",
        "# TYPE holdfast_ledger_entries_total counter",
        f"holdfast_ledger_entries_total {entries}",
    ]
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help_text: str, by_task: Mapping[TaskName, float]) -> Iterable[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for task, value in sorted(by_task.items()):
        yield f'{name}{{task="{task}"}} {value:g}'
