"""Slices of a request: kept with its capture as the contract says, bounded, and no memory of what values there were."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from holdfast.domain.tasks import CapturePolicy
from holdfast.serving.capture_buffer import CaptureBuffer

from .gateway_place import PATH, Place, refusal

V2 = "/v2/models/tickets/infer"


def infer(**parameters: Any) -> dict[str, Any]:
    return {"parameters": parameters, "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["one", "two"]}]}


def test_slices_that_the_contract_does_not_name_are_dropped_and_counted(tmp_path: Path) -> None:
    place = Place(tmp_path, contract={"capture": CapturePolicy(slices=("channel", "language"))})
    slices = {"channel": "mail", "customer": "4711", "session": "x"}
    assert place.client.post(PATH, json={"text": "x", "request_id": "r-1", "slices": slices}).status_code == 200
    assert place.captures()["r-1"].slices == {"channel": "mail"}
    assert place.figure('holdfast_dropped_slices_total{task="tickets"}') == 2


def test_without_names_in_the_contract_all_slices_are_kept(place: Place) -> None:
    place.client.post(PATH, json={"text": "x", "request_id": "r-1", "slices": {"channel": "mail", "empty": ""}})
    assert place.captures()["r-1"].slices == {"channel": "mail", "empty": ""}
    assert place.figure('holdfast_dropped_slices_total{task="tickets"}') == 0


def test_parameters_of_the_v2_protocol_are_slices_of_each_text(place: Place) -> None:
    assert place.client.post(V2, json=infer(slice_channel="mail", priority=1)).status_code == 200
    assert [capture.slices for capture in place.captures().values()] == [{"channel": "mail"}] * 2


@pytest.mark.parametrize(
    "slices",
    [
        {f"s{n}": "x" for n in range(17)},
        {"n" * 65: "x"},
        {"": "x"},
        {"channel": "x" * 257},
        {"channel": "a\x00b"},
        {"a\x07b": "x"},
        {"channel": 3},
    ],
)
def test_slices_beyond_the_bounds_refuse_the_request_at_both_doors(place: Place, slices: dict[str, Any]) -> None:
    response = place.client.post(PATH, json={"text": "x", "slices": slices})
    assert refusal(response) == (422, "request_invalid")
    assert "slices" in response.json()["detail"]
    assert place.client.post(V2, json=infer(**{f"slice_{name}": value for name, value in slices.items()})).status_code == 400
    assert place.captures() == {}
    assert not place.asked


def test_a_hundred_thousand_values_of_a_rogue_client_leave_nothing_in_memory(tmp_path: Path) -> None:
    place = Place(tmp_path, queue_rows=512)
    object.__setattr__(place.state, "buffer", CaptureBuffer(tmp_path / "rogue", len, segment_rows=1000))

    def send(first: int) -> None:
        rows = range(first, first + 200)
        items = [{"text": "x", "slices": {f"name-{n}-{k}": f"value-{n}-{k}" for k in range(16)}} for n in rows]
        assert place.client.post(PATH, json={"items": items}).status_code == 200
        assert place.state.buffer is not None
        assert place.state.buffer.drain() == 200
        place.asked.clear()

    send(0)
    series = place.client.get("/metrics").text.count("\n")
    tracemalloc.start()
    for first in range(200, 6_400, 200):  # 16 values each: 102,400 with the first
        send(first)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert place.client.get("/metrics").text.count("\n") == series
    assert kept < 2_000_000, kept  # the JSON parser keeps 16,384 strings, 0.8 MB; all names and values would be 13 MB
