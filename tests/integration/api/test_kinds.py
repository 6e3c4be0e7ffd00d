"""Tasks with sets and with spans, by REST and in the console: natural forms in, canonical answers kept, readable ones shown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.testing.record_builders import a_capture, a_version

TEXT = "in Oslo <today>"
OSLO = spans_value([Span(field="city", start=3, end=7, text="Oslo")])
TODAY = spans_value([Span(field="day", start=9, end=14, text="today")])


def a_task(place: Any, kind: str, said: str) -> TaskName:
    """A task with one capture, `c-1`."""
    task = TaskName(kind)
    labels = ["city", "day"] if kind == "extraction" else ["auth", "net", "ui"]
    contract = {"task": task, "kind": kind, "labels": labels, "floor": 0.5, "metric": "f1"}
    assert place.client().post("/api/v1/tasks", json=contract).status_code == 201
    capture = a_capture(1, capture_id=CaptureId("c-1"), task=task, text=TEXT, prediction=Prediction(label=said, confidence=0.5))
    place.house.log.append([capture])
    return task


def label(place: Any, task: str, value: object) -> Any:
    return place.client().post(f"/api/v1/tasks/{task}/labels", json={"labels": [{"capture_id": "c-1", "value": value}]})


@pytest.mark.parametrize("value", [[{"field": "city", "start": 3, "end": 7}], {"city": "Oslo"}, '{"city": "Oslo"}', OSLO])
def test_spans_are_labelled_in_natural_forms_and_kept_canonical(place: Any, value: object) -> None:
    task = a_task(place, "extraction", spans_value([]))
    assert label(place, task, value).json()["stored_count"] == 1
    assert place.house.log.labelled_since(task, 0)[0].label.value == OSLO


def test_spans_that_do_not_fit_the_capture_are_refused_with_the_reason(place: Any) -> None:
    task = a_task(place, "extraction", spans_value([]))
    refused = label(place, task, [{"field": "city", "start": 3, "end": 70}])
    assert refused.status_code == 422
    assert "does not lie in the text of 15 characters" in refused.text
    assert label(place, task, [{"field": "town", "start": 3, "end": 7}]).status_code == 422
    assert place.house.log.label_count(task) == 0


@pytest.mark.parametrize("value", [["net", "auth"], "auth|net", '["net","auth"]'])
def test_sets_are_labelled_in_natural_forms(place: Any, value: object) -> None:
    task = a_task(place, "multi-label", "[]")
    assert label(place, task, value).status_code == 201
    assert place.house.log.labelled_since(task, 0)[0].label.value == labels_value(["auth", "net"])
    assert label(place, task, ["auth", "disk"]).status_code == 422


def test_quality_of_a_task_with_f1_is_the_mean_f1(place: Any) -> None:
    from holdfast.api.series import SeriesCache

    task = a_task(place, "multi-label", labels_value(["auth"]))
    assert label(place, task, ["auth", "net"]).status_code == 201
    (row,) = SeriesCache().labelled(place.house, task, "f1").rows
    assert row.score == pytest.approx(2 / 3)
    assert row.wrong


def test_a_data_set_of_spans_is_audited_row_by_row(place: Any) -> None:
    task = a_task(place, "extraction", spans_value([]))
    sent = [{"text": TEXT, "label": [{"field": "city", "start": 3, "end": 7}]}, {"text": "on Monday", "label": {"day": "Monday"}}]
    bad = [*sent, {"text": "no", "label": [{"field": "day", "start": 0, "end": 9}]}, {"text": "no", "label": "day"}]
    found = place.client().post(f"/api/v1/tasks/{task}/datasets?dry_run=true", json={"examples": bad}).json()["audit"]
    assert [error["place"] for error in found["errors"]] == ["row 3", "row 4"]
    assert "does not lie in the text" in found["errors"][0]["message"]
    stored = place.client().post(f"/api/v1/tasks/{task}/datasets", json={"examples": sent})
    assert stored.status_code == 201
    assert stored.json()["snapshot"]["labels"] == ["city", "day"]


@pytest.mark.parametrize(
    ("case", "form", "kept"),
    [
        (("multi-label", labels_value(["auth", "net"]), "auth, net"), {"value": ["ui", "net"]}, labels_value(["net", "ui"])),
        (("multi-label", labels_value(["auth"]), "auth"), {}, "[]"),
        (("extraction", OSLO, "city: Oslo"), {"value": OSLO}, OSLO),
        (("extraction", OSLO, "city: Oslo"), {"value": '{"day": "today"}'}, TODAY),
    ],
)
def test_the_console_shows_an_answer_in_words_and_takes_its_label(place: Any, case: tuple[str, str, str], form: Any, kept: str) -> None:
    kind, said, shown = case
    task = a_task(place, kind, said)
    browser = place.browser()
    page = browser.get(f"/tasks/{task}").text
    assert "ccuracy" not in page
    assert f"<td>{shown}</td>" in page
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token is not None
    pressed = browser.post(f"/tasks/{task}/label", data={"csrf": token[1], "capture_id": "c-1", **form})
    assert pressed.status_code == 303, pressed.text
    assert place.house.log.labelled_since(task, 0)[0].label.value == kept


def test_the_form_of_an_extraction_holds_its_answer_as_a_person_would_write_it(place: Any) -> None:
    task = a_task(place, "extraction", OSLO)
    page = place.browser().get(f"/tasks/{task}").text
    assert re.search(r"<textarea[^>]*>{&#34;city&#34;: &#34;Oslo&#34;}</textarea>", page)


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
def test_a_label_that_a_version_learned_beside_the_contract_can_be_chosen_and_is_what_it_answered(place: Any, kind: str) -> None:
    said = "disk" if kind == "classification" else labels_value(["auth", "disk"])
    task = TaskName("open")
    contract = {"task": task, "kind": kind, "labels": ["auth", "net"], "labels_open": True, "floor": 0.5}
    assert place.client().post("/api/v1/tasks", json=contract).status_code == 201
    with place.house.unit_of_work() as work:
        work.versions.put(a_version(task=task, labels=("auth", "disk", "net")))
        work.commit()
    place.house.log.append([a_capture(1, task=task, text=TEXT, prediction=Prediction(label=said, confidence=0.5))])
    page = place.browser().get("/tasks/open").text
    assert re.findall(r"<option (selected)?>(\w+)</option>", page) == [
        ("selected" if label in said else "", label) for label in ("auth", "net", "disk")
    ]
