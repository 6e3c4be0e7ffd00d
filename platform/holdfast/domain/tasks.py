"""The task contract: what one ML problem is, and what the loop may do for it.

Eight lines suffice; every other field has a default that says why. ``parse_contract`` reports every mistake at once, each
with its path; the file reader adds the line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from holdfast.domain.ids import TaskName, is_task_name
from holdfast.errors import ContractInvalid, Problem

Rung = Literal["head", "lora"]
Kind = Literal["classification", "multi-label", "extraction"]
Metric = Literal["accuracy", "f1"]
Mode = Literal["off", "suggest", "automatic"]
Sensitive = Literal["email", "phone", "credit_card", "iban", "ip"]
MAX_SLICES = 16
"""Of one request."""
MAX_SLICE_NAME, MAX_SLICE_VALUE = 64, 256
"""Characters."""
METRIC_WORDS: Mapping[Metric, str] = {"accuracy": "accuracy", "f1": "mean F1"}


def titled(metric: Metric) -> str:
    """A metric in words, as the beginning of a title or sentence.

    >>> titled("accuracy"), titled("f1")
    ('Accuracy', 'Mean F1')
    """
    words = METRIC_WORDS[metric]
    return words[:1].upper() + words[1:]


def _limits(low: float | None = None, high: float | None = None) -> Any:
    return {"low": low, "high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """How a LoRA rung is trained on the frozen base."""

    rank: int = field(default=16, metadata=_limits(1, 256))
    """Rank of every update; LoRA Without Regret (2025) finds small ranks enough for small data."""
    alpha: float = field(default=32.0, metadata=_limits(0.1, 1024))
    last_layers: int = field(default=6, metadata=_limits(1, 128))
    """Layers from the top that carry LoRA (6 are all of MiniLM); the layers below are a frozen prefix whose outputs are cached. Half as
    many cost half as much an epoch, and on Banking77 half a point (decisions/log-training.md)."""
    learning_rate: float = field(default=1e-3, metadata=_limits(1e-6, 1.0))
    """Twice this made the first epoch worse than the head it starts from (decisions/log-training.md)."""
    epoch_count: int = field(default=3, metadata=_limits(1, 100))
    batch_rows: int = field(default=32, metadata=_limits(1, 4096))


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringPolicy:
    """What is watched, and how often an alarm on unchanged traffic is tolerated."""

    run_length_events: int = field(default=250_000, metadata=_limits(100, 1e12))
    """On unchanged traffic, a false alarm of the whole task within n events has probability at most n divided by this, for every n;
    shared equally by its monitors. The share of the fleet's budget may ask for more."""
    weight: float = field(default=1.0, metadata=_limits(0.01, 100))
    """Part of the fleet's false-alarm budget beside the other tasks; of two tasks the heavier sees a change sooner."""
    report_rows: int = field(default=500, metadata=_limits(30, 10_000))
    """Captures of one drift report (Evidently)."""
    input_alarm_acts: bool = False
    """Whether drift of the inputs alone, without evidence of lost quality, may start a retraining."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingPolicy:
    """When an alert may start a training, with what data, and which rung of the ladder may win."""

    mode: Mode = "automatic"
    rung: Literal["smallest", "head", "lora"] = "smallest"
    """`smallest`: head and LoRA are trained and the head wins unless LoRA is surely better; `lora`: LoRA is wanted, the head is
    trained and shown beside it; `head`: only the head is trained."""
    min_labels: int = field(default=200, metadata=_limits(20, 1_000_000))
    """Labelled captures since the change that must be there before a training starts."""
    replay_share: float = field(default=0.5, metadata=_limits(0.0, 0.95))
    """Share of the training rows that is replayed from the parent version's data."""
    max_rows: int = field(default=20_000, metadata=_limits(100, 10_000_000))
    max_near_duplicates: int = field(default=5, metadata=_limits(1, 1_000_000))
    """So many texts that are nearly the same, with the same label, are trained on at most; more say nothing new."""
    max_share_by_source: float = field(default=0.8, metadata=_limits(0.05, 1.0))
    """Share of the recent labels that one source gives at most, where there are others; a person's labels in the console and in reviews
    count in full, and so do the first `min_labels` of any source. 1 means no cap."""
    max_suspected_share: float = field(default=0.05, metadata=_limits(0.0, 0.5))
    """Share of the training rows that is left out at most because their labels look wrong; 0 turns the search off."""
    cool_down_s: float = field(default=600.0, metadata=_limits(0.0, 1e8))
    max_per_day: int = field(default=6, metadata=_limits(1, 1000))
    max_attempts: int = field(default=3, metadata=_limits(1, 20))
    lora: LoraSpec = LoraSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionPolicy:
    """What a candidate must show, and who promotes it."""

    mode: Mode = "automatic"
    alpha: float = field(default=0.05, metadata=_limits(1e-6, 0.5))
    """Probability, at any number of looks, that a criterion passes what it should not; the intervals shown have level 1 - 2 alpha."""
    margin: float = field(default=0.05, metadata=_limits(0.0, 0.5))
    """Loss on past traffic that is tolerated, as a share of rows."""
    min_holdout_rows: int = field(default=50, metadata=_limits(10, 1_000_000))
    verdict_ttl_s: float = field(default=7 * 86_400.0, metadata=_limits(1.0, 1e9))


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePolicy:
    """What of a request is written down."""

    redact: tuple[Sensitive, ...] = ()
    """What is masked, by marks of the same length, in text, spans and slices before anything is written (`domain.redaction`)."""
    slices: tuple[str, ...] | None = None
    """Names of the slices that are kept of a request; others are dropped and counted. Absent: all, 16 to a request at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContract:
    """The whole contract of one task."""

    task: TaskName
    kind: Kind = "classification"
    """`classification`: one label of each text; `multi-label`: any number of labels; `extraction`: spans of the text, each of one field."""
    labels: tuple[str, ...]
    """Of an extraction the names of the fields."""
    labels_open: bool = False
    """Whether a label outside `labels` is a new class (true) or a mistake of the sender (false)."""
    metric: Metric = "accuracy"
    """What the gate judges by. `accuracy`: share of answers that are right as a whole; `f1`: mean over rows of the F1 of labels or spans.
    The quality monitor counts answers that are wrong anywhere, with either."""
    floor: float = field(metadata=_limits(0.0, 1.0))
    """Quality below which the task counts as failing, in the metric."""
    description: str = ""
    base: str = "minilm"
    max_tokens: int = field(default=128, metadata=_limits(8, 512))
    overlong: Literal["truncate", "refuse"] = "truncate"
    """A text of more tokens is cut, and its answer says `truncated` (truncate), or it gets no answer (refuse)."""
    latency_budget_ms: float = field(default=250.0, metadata=_limits(1.0, 1e6))
    cost_ceiling_per_1k: float | None = field(default=None, metadata=_limits(0.0, 1e6))
    """Highest cost of a thousand predictions, in the currency of the price settings; absent means no ceiling."""
    residency: str = "local"
    """Where request data may be stored; `local` is the machine that serves it."""
    deployment: str = "default"
    """Name of the serving fleet that answers this task."""
    capture: CapturePolicy = CapturePolicy()
    monitoring: MonitoringPolicy = MonitoringPolicy()
    retraining: RetrainingPolicy = RetrainingPolicy()
    promotion: PromotionPolicy = PromotionPolicy()


def parse_contract(plain: object, *, source: str = "contract") -> TaskContract:
    """The contract of a plain mapping, as read from YAML.

    Raises:
        ContractInvalid: with every mistake found, each at its dotted path.

    >>> parse_contract({"task": "t", "labels": ["a", "b"], "floor": 0.8}).retraining.min_labels
    200
    """
    problems: list[Problem] = []
    contract = _section(TaskContract, plain, "", problems)
    if contract is not None:
        problems.extend(_cross_checks(contract))
    if problems or contract is None:
        raise ContractInvalid(source=source, problems=problems)
    return typing.cast(TaskContract, contract)


def _cross_checks(contract: Any) -> list[Problem]:
    problems = []
    if not is_task_name(contract.task):
        problems.append(Problem("task", f"{contract.task!r} must be a lower-case letter, then letters, digits, hyphens (63 at most)"))
    if len(contract.labels) < (2 if contract.kind == "classification" else 1) and not contract.labels_open:
        problems.append(Problem("labels", "at least two labels are needed" if contract.kind == "classification" else "no label"))
    if contract.kind == "classification" and contract.metric != "accuracy":
        problems.append(Problem("metric", "a single label is right or wrong: accuracy"))
    if any(label[:1] in ("[", "{") for label in contract.labels):
        problems.append(Problem("labels", "a label cannot begin with a bracket: sets and spans are written so"))
    if contract.kind == "multi-label" and any("|" in label for label in contract.labels):
        problems.append(Problem("labels", "a label of a set cannot hold |, which divides labels in a table"))
    doubled = sorted({label for label in contract.labels if contract.labels.count(label) > 1})
    if doubled:
        problems.append(Problem("labels", f"listed twice: {', '.join(doubled)}"))
    if any(not 0 < len(name) <= MAX_SLICE_NAME for name in contract.capture.slices or ()):
        problems.append(Problem("capture.slices", f"a name has 1 to {MAX_SLICE_NAME} characters"))
    if len(contract.capture.slices or ()) > MAX_SLICES:
        problems.append(Problem("capture.slices", f"more than {MAX_SLICES} names"))
    if any(not label.strip() for label in contract.labels):
        problems.append(Problem("labels", "an empty label"))
    return problems


def _section(kind: Any, plain: object, path: str, problems: list[Problem]) -> Any:
    """One dataclass of the contract from a mapping; None when it cannot be built (a problem was then recorded)."""
    if not isinstance(plain, Mapping):
        problems.append(Problem(path or "the file", f"must be a mapping of names to values, not {_name(plain)}"))
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in plain:
        if name not in fields:
            problems.append(Problem(_join(path, str(name)), f"is not a field; the fields are {', '.join(fields)}"))
    before, values = len(problems), {}
    for name, spec in fields.items():
        if name in plain:
            values[name] = _value(hints[name], plain[name], _join(path, name), spec.metadata, problems)
        elif spec.default is dataclasses.MISSING:
            problems.append(Problem(_join(path, name), "is required"))
    return kind(**values) if len(problems) == before else None


def _value(kind: Any, plain: Any, path: str, limits: Mapping[str, Any], problems: list[Problem]) -> Any:
    if dataclasses.is_dataclass(kind):
        return _section(kind, plain, path, problems)
    if get_origin(kind) in (Union, types.UnionType):
        if plain is None:
            return None
        kind = next(arm for arm in get_args(kind) if arm is not type(None))
    if get_origin(kind) is Literal:
        if plain not in get_args(kind):
            problems.append(Problem(path, f"must be one of {', '.join(map(str, get_args(kind)))}, not {plain!r}"))
        return plain
    if get_origin(kind) is tuple:
        if not isinstance(plain, list) or not all(isinstance(item, str) for item in plain):
            problems.append(Problem(path, "must be a list of texts (quote a label such as 'yes' or '1')"))
            return ()
        return tuple(_value(get_args(kind)[0], item, f"{path}.{index}", {}, problems) for index, item in enumerate(plain))
    return _scalar(kind, plain, path, limits, problems)


def _scalar(kind: Any, plain: Any, path: str, limits: Mapping[str, Any], problems: list[Problem]) -> Any:
    wanted = getattr(kind, "__supertype__", kind)
    right = {
        bool: isinstance(plain, bool),
        int: isinstance(plain, int) and not isinstance(plain, bool),
        float: isinstance(plain, int | float) and not isinstance(plain, bool),
        str: isinstance(plain, str),
    }[wanted]
    if not right:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        problems.append(Problem(path, f"must be {words[wanted]}, not {_name(plain)}"))
        return plain
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and not plain >= low) or (high is not None and not plain <= high):
        problems.append(Problem(path, f"must lie in {low:g} .. {high:g}, not {plain}"))
    return wanted(plain)


def _name(plain: object) -> str:
    return "nothing" if plain is None else f"{plain!r}"[:60]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
