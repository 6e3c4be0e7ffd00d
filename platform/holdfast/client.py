"""A client of the control plane and the data plane. Imports no framework but the HTTP client, so it starts at once.

Every method gives the plain JSON value of the reply, and raises the error of the tree whose ``code`` the problem names.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx2

from holdfast.errors import NotFound, PartUnavailable
from holdfast.problems import error_of, json_of, object_of

Json = dict[str, Any]
AlertAnswer = Literal["acknowledge", "resolve", "false-alarm"]
TRIES = 4
"""Attempts of a reading request; waits of about 0.1, 0.2 and 0.4 s lie between them."""
AGAIN, NONE = frozenset({429, 502, 503, 504}), dict[str, object]()


class NobodyThere(PartUnavailable):
    """{part} does not answer: no connection.

    Mend: run `holdfast up`.
    """


class Client:
    """One control plane and one data plane, with one key. Safe to use from several threads; close it, or use it in a ``with``."""

    def __init__(
        self, api_url: str, gateway_url: str, key: str, *, timeout_s: float = 30.0, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.api_url, self.gateway_url = api_url.rstrip("/"), gateway_url.rstrip("/")
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=httpx2.Timeout(timeout_s, connect=5.0),
            transport=transport,
            trust_env=False,  # loopback is never reached through a proxy
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Tasks

    def tasks(self) -> list[Json]:
        """Contracts of all tasks."""
        return self._list("tasks")

    def task(self, task: str) -> Json:
        """How one task stands: contract, assignment, champion, monitors, quality, counts, alerts, retraining, standing."""
        return self._get(f"tasks/{_part(task)}")

    def create_task(self, contract: Mapping[str, object], *, replace: bool = False) -> Json:
        """Create a task, or change its contract with ``replace``. Raises ContractInvalid, AlreadyExists."""
        return self._send("POST", "tasks", dict(contract), params={"replace": "true"} if replace else {})

    # Data

    def add_dataset(self, task: str, examples: Sequence[Mapping[str, str]], *, dry_run: bool = False) -> Json:
        """``{snapshot, audit}``; on a dry run nothing is stored and the audit lists every mistake. Raises DataInvalid."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._send("POST", f"tasks/{_part(task)}/datasets", {"examples": [dict(e) for e in examples]}, params=params)

    def datasets(self, task: str) -> list[Json]:
        """Records of the snapshots, newest first."""
        return self._list(f"tasks/{_part(task)}/datasets")

    def add_labels(self, task: str, labels: Sequence[Mapping[str, str]]) -> Json:
        """``{stored_count, sent_count}`` of ``[{capture_id, value, source?}]``: all or none. Raises NotFound, LabelUnknown."""
        return self._send("POST", f"tasks/{_part(task)}/labels", {"labels": [dict(label) for label in labels]})

    def captures(self, task: str, *, after: int | None = None, limit: int = 100) -> list[Json]:
        """Captures in order; without ``after`` the newest."""
        return self._list(f"tasks/{_part(task)}/captures", {"limit": limit} if after is None else {"after": after, "limit": limit})

    # Loop

    def versions(self, task: str) -> list[Json]:
        """Adapter versions, by number."""
        return self._list(f"tasks/{_part(task)}/versions")

    def retrainings(self, task: str) -> list[Json]:
        """Newest first."""
        return self._list(f"tasks/{_part(task)}/retrainings")

    def retraining(self, retraining_id: str) -> Json:
        """One retraining."""
        return self._get(f"retrainings/{_part(retraining_id)}")

    def request_retraining(self, task: str, *, reason: str, idempotency_key: str | None = None, anyway: bool = False) -> Json:
        """Ask for a retraining. Raises Conflict when one is under way, RetrainingHeld on broken inputs unless ``anyway``."""
        body: Json = {"reason": reason, "anyway": anyway} | ({"idempotency_key": idempotency_key} if idempotency_key else {})
        return self._send("POST", f"tasks/{_part(task)}/retrainings", body)

    def verdict(self, verdict_id: str) -> Json:
        """One verdict with its criteria."""
        return self._get(f"verdicts/{_part(verdict_id)}")

    def promotions(self, task: str) -> list[Json]:
        """Promotions and rollbacks, newest first."""
        return self._list(f"tasks/{_part(task)}/promotions")

    def promote(self, task: str, *, adapter_digest: str, reason: str, expected_generation: int | None = None) -> Json:
        """Make a version champion. Raises GateRefused, StaleGeneration."""
        body: Json = {"adapter_digest": adapter_digest, "reason": reason}
        return self._send("POST", f"tasks/{_part(task)}/promotions", body | _generation(expected_generation))

    def roll_back(self, task: str, *, reason: str, expected_generation: int | None = None) -> Json:
        """Make the previous champion champion again."""
        return self._send("POST", f"tasks/{_part(task)}/rollbacks", {"reason": reason} | _generation(expected_generation))

    def begin_trial(self, task: str, *, adapter_digest: str, reason: str, share_canary: float = 0.0, shadow: bool = False) -> Json:
        """Put a version on trial beside the champion; a canary needs a passing verdict. Raises GateRefused, NotFound."""
        body: Json = {"adapter_digest": adapter_digest, "share_canary": share_canary, "shadow": shadow, "reason": reason}
        return self._send("PUT", f"tasks/{_part(task)}/trial", body)

    def end_trial(self, task: str, *, reason: str) -> Json:
        """Let the champion answer alone."""
        return self._send("DELETE", f"tasks/{_part(task)}/trial", None, params={"reason": reason})

    def assignments(self) -> list[Json]:
        """Who is champion of each task."""
        return self._list("assignments")

    def monitors(self, task: str) -> list[Json]:
        """Readings of the champion's monitors; empty while nothing was read."""
        return self._list(f"tasks/{_part(task)}/monitors")

    def monitor_budget(self) -> Json:
        """The fleet's budget of false alarms, and each monitor of each task with its reading, share and spending."""
        return self._get("monitors/budget")

    def reports(self, task: str, *, limit: int = 50) -> list[Json]:
        """Drift reports, newest first."""
        return self._list(f"tasks/{_part(task)}/reports", {"limit": limit})

    def alerts(self, task: str | None = None) -> list[Json]:
        """Every alert of a task, or every open one of all."""
        return self._list("alerts", {} if task is None else {"task": task})

    def answer_alert(self, alert_id: str, answer: AlertAnswer) -> Json:
        """Acknowledge or close an alert."""
        return self._send("POST", f"alerts/{_part(alert_id)}/{answer}", None)

    def reviews(self, task: str) -> list[Json]:
        """Requests for labels, newest first."""
        return self._list(f"tasks/{_part(task)}/reviews")

    def ask_review(self, task: str, *, row_count: int) -> Json:
        """Ask for labels. Raises Conflict while a review of the task is open."""
        return self._send("POST", f"tasks/{_part(task)}/reviews", {"row_count": row_count})

    def review_table(self, request_id: str, *, show: bool = False) -> str:
        """The rows that wait, as CSV."""
        return self._ask("GET", f"{self.api_url}/api/v1/reviews/{_part(request_id)}/table", "the API", params={"show": show}).text

    def give_review_table(self, request_id: str, table: str) -> Json:
        """``{answer_count, review}`` of a filled-in CSV: all or none. Raises DataInvalid with every line that is wrong."""
        url = f"{self.api_url}/api/v1/reviews/{_part(request_id)}/table"
        return object_of(self._ask("PUT", url, "the API", table=table))

    # Ledger and keys

    def ledger(self, *, after: int = 0, limit: int = 100) -> list[Json]:
        """Ledger rows in order."""
        return self._list("ledger", {"after": after, "limit": limit})

    def all_ledger(self) -> Iterator[Json]:
        """Every ledger row, read page by page."""
        after = 0
        while page := self.ledger(after=after, limit=1_000):
            yield from page
            after = page[-1]["seq"]

    def verify_ledger(self) -> Json:
        """``{entry_count, head}``. Raises LedgerBroken."""
        return self._get("ledger/verify")

    def keys(self) -> list[Json]:
        """Names of the valid keys."""
        return self._list("keys")

    def create_key(self, name: str) -> Json:
        """``{name, key}``; the key is shown this once."""
        return self._send("POST", "keys", {"name": name})

    def revoke_key(self, name: str) -> None:
        """Takes effect within a second."""
        self._ask("DELETE", f"{self.api_url}/api/v1/keys/{_part(name)}", "the API")

    # Data plane and health

    def predict(self, task: str, text: str, *, request_id: str | None = None, slices: Mapping[str, str] | None = None) -> Json:
        """One answer of the data plane. With a request id it is stored once however often it is sent."""
        body: Json = {"text": text}
        if request_id is not None:
            body["request_id"] = request_id
        if slices:
            body["slices"] = dict(slices)
        return self._predict(task, body)

    def predict_many(self, task: str, items: Sequence[Mapping[str, object]]) -> list[Json]:
        """Answers to ``[{text, request_id?, slices?}]``, in order."""
        answers: list[Json] = self._predict(task, {"items": [dict(item) for item in items]})["answers"]
        return answers

    def give_feedback(self, labels: Sequence[Mapping[str, str]]) -> int:
        """Labels of answers, ``[{request_id, label, task?, source?}]``, taken by the data plane at once; how many were taken.

        A label may come before its capture is in the log; it joins it there. Raises LabelUnknown and NotFound where a task is named.
        """
        body = {"items": [dict(label) for label in labels]}
        return int(object_of(self._ask("POST", f"{self.gateway_url}/v1/feedback", "the gateway", json=body))["accepted_count"])

    def api_ready(self) -> bool:
        """Whether the control plane can work."""
        return self._is_ready(self.api_url)

    def gateway_ready(self) -> bool:
        """Whether the data plane can answer."""
        return self._is_ready(self.gateway_url)

    def _predict(self, task: str, body: Json) -> Json:
        url = f"{self.gateway_url}/v1/tasks/{_part(task)}/predict"
        return object_of(self._ask("POST", url, "the gateway", json=body))

    def _is_ready(self, url: str) -> bool:
        try:
            return self._http.get(f"{url}/readyz", timeout=2.0).status_code == 200
        except httpx2.TransportError:
            return False

    def _get(self, path: str) -> Json:
        return object_of(self._ask("GET", f"{self.api_url}/api/v1/{path}", "the API"))

    def _list(self, path: str, params: Mapping[str, object] = NONE) -> list[Json]:
        value = json_of(self._ask("GET", f"{self.api_url}/api/v1/{path}", "the API", params=params))
        if not isinstance(value, list):
            raise PartUnavailable(part="the API", reason="it answered something that is not a list")
        return value

    def _send(self, method: str, path: str, body: Json | None, *, params: Mapping[str, str] = {}) -> Json:
        return object_of(self._ask(method, f"{self.api_url}/api/v1/{path}", "the API", json=body, params=params))

    def _ask(
        self,
        method: str,
        url: str,
        part: str,
        *,
        json: Json | None = None,
        table: str | None = None,
        params: Mapping[str, object] = NONE,
    ) -> httpx2.Response:
        """One request, with a JSON body or a CSV; reading ones are tried again when the part is away or busy."""
        tries = TRIES if method == "GET" else 1
        for left in reversed(range(tries)):
            try:
                query, headers = {k: str(v) for k, v in params.items()}, {} if table is None else {"content-type": "text/csv"}
                response = self._http.request(method, url, json=json, content=table, params=query, headers=headers)
            except httpx2.ConnectError as error:
                if not left:
                    raise NobodyThere(part=f"{part} at {url.split('/', 3)[2]}") from error
            except httpx2.TransportError as error:
                if not left:
                    raise PartUnavailable(part=part, reason=f"{type(error).__name__} at {url.split('?', maxsplit=1)[0]}") from error
            else:
                if response.status_code < 400:
                    return response
                if response.status_code not in AGAIN or not left:
                    raise error_of(response)
            time.sleep(0.1 * 2 ** (tries - 1 - left) * random.uniform(0.7, 1.3))
        raise AssertionError("the last try returns or raises")


def _part(text: str) -> str:
    """One segment of a path. A name with a slash or dots alone names nothing and would reach another route."""
    if not text or re.fullmatch(r"\.+", text):
        raise NotFound(kind="record", name=text)
    return quote(text, safe="")


def _generation(expected: int | None) -> Json:
    return {} if expected is None else {"expected_generation": expected}
