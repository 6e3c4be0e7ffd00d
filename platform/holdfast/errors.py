"""Every error Holdfast raises on purpose.

A class takes fields; its docstring is the message. The first paragraph says what is wrong and where, the paragraph that
begins with ``Mend:`` says what to do next. Both are formatted with the fields.

    HoldfastError
    |-- BadInput                 the caller sent something that cannot be used; nothing was changed
    |   |-- ContractInvalid
    |   |-- DataInvalid
    |   |-- RequestInvalid
    |   |-- BodyTooLarge
    |   |-- RequestUnfinished
    |   |-- TooManyTokens
    |   |-- LabelUnknown
    |   |-- AdapterRefused
    |   `-- BaseModelRefused
    |-- NotFound                 no record of that name
    |-- NotPermitted             no key, a wrong key, or a revoked one
    |-- Conflict                 the world moved on; look again and decide again
    |   |-- StaleGeneration
    |   |-- VersionNotHeld
    |   |-- LeaseLost
    |   |-- AlreadyExists
    |   |-- HomeInUse
    |   `-- PortInUse
    |-- GateRefused              a gate said no, or has not said yes
    |   `-- RetrainingHeld
    |-- Unhealthy                a part that is needed does not work now
    |   |-- PartUnavailable
    |   |-- StorageRefused
    |   |-- Overloaded
    |   |-- DeadlinePassed
    |   `-- TrainingFailed
    `-- LedgerBroken             the chain does not verify
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an input: where it stands and what is wrong with it."""

    place: str
    """Path or position, such as ``retraining.min_labels`` or ``line 7, column 3``."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class HoldfastError(Exception):
    """Something went wrong.

    Mend: see the log named by `holdfast status`.
    """

    code = "error"

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        paragraphs = inspect.cleandoc(type(self).__doc__ or "").split("\n\n")
        self.message = " ".join(paragraphs[0].format(**fields).split())
        mends = [p for p in paragraphs if p.startswith("Mend:")]
        self.mend = " ".join(mends[0].removeprefix("Mend:").format(**fields).split()) if mends else ""
        super().__init__(f"{self.message} {self.mend}".strip())


class BadInput(HoldfastError):
    """{problem}

    Mend: correct the input and send it again; nothing was changed.
    """

    code = "bad_input"


class ContractInvalid(BadInput):
    """The task contract {source} has {count} mistake(s): {listing}

    Mend: correct the named places and run the command again; nothing was changed.
    """

    code = "contract_invalid"

    def __init__(self, *, source: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        listing = "; ".join(str(p) for p in problems)
        super().__init__(source=source, count=len(problems), listing=listing)


class DataInvalid(BadInput):
    """The data {source} cannot be used: {problem} (at {place}).

    Mend: {remedy}
    """

    code = "data_invalid"


class RequestInvalid(BadInput):
    """The field {place} cannot be used: {problem}.

    Mend: {remedy}
    """

    code = "request_invalid"


class BodyTooLarge(BadInput):
    """The body is larger than {limit_mib} MiB.

    Mend: send it in smaller parts; nothing was read.
    """

    code = "body_too_large"


class RequestUnfinished(BadInput):
    """The request did not arrive whole within {seconds} s.

    Mend: send it again; nothing of it was used.
    """

    code = "request_unfinished"


class TooManyTokens(BadInput):
    """The text at {place} has {count} tokens, and task {task} reads {limit}.

    Mend: shorten the text, or set `overlong: truncate` in the contract to have it cut.
    """

    code = "too_many_tokens"


class LabelUnknown(BadInput):
    """The label {label!r} is not one of the labels of task {task}.

    Mend: use one of its labels ({known}), or set `labels_open: true` in the contract.
    """

    code = "label_unknown"


class AdapterRefused(BadInput):
    """The adapter in {folder} is refused: {reason}.

    Mend: register an adapter that Holdfast trained, or train it again with `holdfast train`.
    """

    code = "adapter_refused"


class BaseModelRefused(BadInput):
    """The base model {base} is refused: {reason}.

    Mend: install the pinned base model again (`make setup`) or correct its digest in the settings.
    """

    code = "base_refused"


class NotFound(HoldfastError):
    """There is no {kind} {name!r}.

    Mend: see what there is with `holdfast task list` and `holdfast task show TASK`: a step may be missing (data add, train, promote), or a
    name be misspelt.
    """

    code = "not_found"


class NotPermitted(HoldfastError):
    """The request carries no valid API key.

    Mend: send `Authorization: Bearer KEY`; `holdfast keys create` makes one.
    """

    code = "not_permitted"


class Conflict(HoldfastError):
    """{problem}

    Mend: look at the present state and decide again.
    """

    code = "conflict"


class StaleGeneration(Conflict):
    """Task {task} is at generation {actual}, not at {expected}.

    Mend: read the assignment again (`holdfast status`) and repeat with its generation.
    """

    code = "stale_generation"


class VersionNotHeld(Conflict):
    """The version {name} ({digest}) exists, but no replica holds it.

    Mend: ask for the task itself, or make the version champion or challenger; replicas load those.
    """

    code = "version_not_held"


class LeaseLost(Conflict):
    """Retraining {retraining_id} is held by another worker; this result was dropped.

    Mend: nothing to do; the other worker goes on.
    """

    code = "lease_lost"


class AlreadyExists(Conflict):
    """The {kind} {name!r} exists already.

    Mend: choose another name, or show it with `holdfast {kind} show {name}`.
    """

    code = "already_exists"


class HomeInUse(Conflict):
    """The home {home} is in use by a running Holdfast (process {pid}).

    Mend: stop it with `holdfast down`, or choose another home with `--home`.
    """

    code = "home_in_use"


class PortInUse(Conflict):
    """Port {port} ({part}) is in use by another program.

    Mend: stop that program, or choose another port with {setting}.
    """

    code = "port_in_use"


class GateRefused(HoldfastError):
    """The gate refuses adapter {digest} for task {task}: {reason}.

    Mend: {remedy}
    """

    code = "gate_refused"


class RetrainingHeld(GateRefused):
    """No training of task {task} is started while its inputs come broken: {reason}.

    Mend: repair what sends the inputs, or answer the alert (resolve it, or call it a false alarm). `holdfast retrain {task} --anyway`
    (over REST `"anyway": true`) trains on them all the same, and the ledger says so.
    """

    code = "retraining_held"


class Unhealthy(HoldfastError):
    """{problem}

    Mend: run `holdfast doctor`.
    """

    code = "unhealthy"


class PartUnavailable(Unhealthy):
    """{part} does not answer: {reason}.

    Mend: run `holdfast doctor`; what was asked is kept and tried again where it can be.
    """

    code = "part_unavailable"


class StorageRefused(Unhealthy):
    """{place} cannot be written: {reason}.

    Mend: free space or correct the permissions; nothing was half-written.
    """

    code = "storage_refused"


class Overloaded(Unhealthy):
    """{count} requests wait already.

    Mend: send it again after the pause in Retry-After, or add replicas.
    """

    code = "overloaded"


class DeadlinePassed(Unhealthy):
    """There was no answer within {seconds} s.

    Mend: send it again; a prediction asked twice is harmless. See `holdfast doctor` if it goes on.
    """

    code = "deadline_passed"


class TrainingFailed(Unhealthy):
    """The training {key} failed: {reason}.

    Mend: see its log in {log}.
    """

    code = "training_failed"


class LedgerBroken(HoldfastError):
    """The ledger does not verify at row {seq}: {reason}.

    Mend: keep a copy of the database and compare it with a backup; somebody or something changed a row.
    """

    code = "ledger_broken"
