"""Reviews over REST and on their page: rows one by one, tables, and labelling in a real browser by keys alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.domain.answers import labels_value
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.review import LabelRequest
from holdfast.flows import review
from holdfast.ports import House
from holdfast.testing.browser_tab import Tab, tab
from holdfast.testing.builders import an_adapter
from holdfast.testing.memory_stores import MemoryAdapterStore
from holdfast.testing.record_builders import a_capture, a_contract, a_version, an_assignment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,860",
]  # fmt: skip
TASK = TaskName("desk")
LABELS = ("billing", "delivery", "returns")
MANY = tuple(f"label-{n:02d}" for n in range(60))


def seed(house: House, said: str = "delivery", **contract: Any) -> None:
    """A task whose champion has answered 60 captures, all alike."""
    folder = Path("/nowhere/desk")
    assert isinstance(house.adapters, MemoryAdapterStore)
    digest = house.adapters.plant(folder, an_adapter("desk", task=TASK))
    house.adapters.add(folder)
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(task=TASK, **contract), house.clock())
        uow.versions.put(a_version(digest=digest, task=TASK, labels=contract.get("labels", LABELS)))
        generation = uow.assignments.next_generation()
        uow.assignments.put(an_assignment(task=TASK, champion=digest, generation=generation), expected_generation=None)
        uow.commit()
    texts = [f"Where is parcel {n}? <b>It was to come on Monday</b> & I have paid." for n in range(60)]
    house.log.append(
        [
            a_capture(
                n, capture_id=f"d-{n}", task=TASK, text=text, adapter_digest=digest, prediction=Prediction(label=said, confidence=0.61)
            )
            for n, text in enumerate(texts)
        ]
    )


def opened(place: Any, **contract: Any) -> LabelRequest:
    """The place with an open review of 30 rows."""
    seed(place.house, **contract)
    return review.ask(place.house, TASK, row_count=30, actor="ann")


def now(place: Any) -> LabelRequest:
    """The newest review as it is."""
    with place.house.unit_of_work() as uow:
        found: LabelRequest = uow.reviews.of_task(TASK)[0]
        return found


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]{20,})"', page)
    assert found is not None
    return found[1]


def test_a_review_is_asked_for_answered_row_by_row_and_closed(place: Any) -> None:
    seed(place.house)
    admin = place.client()
    made = admin.post(f"/api/v1/tasks/{TASK}/reviews", json={"row_count": 30})
    assert (made.status_code, made.json()["open_count"], made.json()["evidence"]["outcome"]) == (201, 30, "more labels")
    at = f"/api/v1/reviews/{made.json()['request_id']}"
    assert admin.post(f"/api/v1/tasks/{TASK}/reviews", json={}).status_code == 409
    row = admin.get(f"{at}/next").json()["row"]
    assert row["answer"] is None and row["confidence"] is None and "parcel" in row["text"]
    assert admin.get(f"{at}/next?show=true").json()["row"]["answer"] == "delivery"
    done = admin.post(f"{at}/answers", json={"capture_id": row["capture_id"], "value": "billing"})
    assert (done.status_code, done.json()["answered_count"]) == (201, 1)
    following = admin.get(f"{at}/next").json()["row"]["capture_id"]
    assert admin.post(f"{at}/skips", json={"capture_id": following}).json()["skipped_count"] == 1
    assert admin.post(f"{at}/undo").json()["skipped_count"] == 0
    assert admin.get(f"{at}/next").json()["row"]["capture_id"] == following
    closed = admin.post(f"{at}/close", json={"reason": "enough"}).json()
    assert (closed["state"], closed["closed_because"]) == ("closed", "enough")
    late = admin.post(f"{at}/answers", json={"capture_id": following, "value": "billing"})
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert admin.get(f"{at}/next").json()["row"] is None
    assert [r["state"] for r in admin.get(f"/api/v1/tasks/{TASK}/reviews").json()] == ["closed"]
    labels = place.house.log.labelled_since(TASK, 0)
    assert [(x.label.value, x.label.source) for x in labels] == [("billing", "review")]


def test_a_wrong_request_changes_nothing_and_says_why(place: Any) -> None:
    request = opened(place)
    admin, at = place.client(), f"/api/v1/reviews/{request.request_id}"
    for path, body, status, code in (
        (f"{at}/answers", {"capture_id": "elsewhere", "value": "billing"}, 404, "not_found"),
        (f"{at}/answers", {"capture_id": request.rows[0].capture_id, "value": "nonsense"}, 422, "label_unknown"),
        (f"{at}/undo", None, 409, "conflict"),
        (f"/api/v1/tasks/{TASK}/reviews", {"row_count": 3}, 422, "request_invalid"),
        ("/api/v1/tasks/none/reviews", {"row_count": 30}, 404, "not_found"),
        ("/api/v1/reviews/none/close", {"reason": "r"}, 404, "not_found"),
    ):
        said = admin.post(path, json=body)
        assert (said.status_code, said.json()["code"]) == (status, code), path
    assert now(place) == request


def test_the_table_goes_out_without_the_answer_of_the_model_and_comes_back_whole_or_not_at_all(place: Any) -> None:
    request = opened(place)
    admin, at = place.client(), f"/api/v1/reviews/{request.request_id}/table"
    out = admin.get(at)
    assert out.headers["content-type"].startswith("text/csv")
    assert "attachment" in out.headers["content-disposition"]
    lines = out.text.splitlines()
    assert lines[0] == "capture_id,text,label" and len(lines) == 31
    assert "0.61" not in out.text and "0.610" in admin.get(f"{at}?show=true").text
    csv = {"content-type": "text/csv"}
    bad = lines[0] + "\n" + lines[1] + "nonsense\n" + lines[2] + "billing\n"
    refused = admin.put(at, content=bad, headers=csv)
    assert refused.status_code == 422 and "line 2" in refused.json()["detail"]
    assert now(place) == request
    good = admin.put(at, content=bad.replace("nonsense", "returns"), headers=csv)
    assert (good.status_code, good.json()["answer_count"], good.json()["review"]["answered_count"]) == (200, 2, 2)
    assert len(admin.get(at).text.splitlines()) == 29


def test_a_large_table_is_taken_where_other_bodies_are_refused(place: Any) -> None:
    request = opened(place)
    table = "capture_id,text,label\n" + f"elsewhere,{'x' * 20_000},\n" * 100 + f"{request.rows[0].capture_id},y,billing\n"
    said = place.client().put(f"/api/v1/reviews/{request.request_id}/table", content=table, headers={"content-type": "text/csv"})
    assert said.status_code == 200


def test_the_page_works_without_scripts_and_hides_what_the_model_said_until_it_is_answered(place: Any) -> None:
    request = opened(place)
    browser = place.browser()
    page = browser.get(f"/tasks/{TASK}/review").text
    assert "&lt;b&gt;It was to come on Monday&lt;/b&gt;" in page and "<b>It was" not in page
    assert "The model said" not in page and 'style="' not in page
    assert "The model said <b>delivery</b>" in browser.get(f"/tasks/{TASK}/review?show=1").text
    form = {"csrf": csrf_of(page), "request_id": request.request_id, "capture_id": request.rows[0].capture_id}
    done = browser.post(f"/tasks/{TASK}/review/answer", data=form | {"value": "billing"})
    assert (done.status_code, done.headers["location"]) == (303, f"/tasks/{TASK}/review")
    page = browser.get(f"/tasks/{TASK}/review").text
    assert "✗ the model said delivery" in page
    assert now(place).rows[0].value == "billing"
    browser.post(f"/tasks/{TASK}/review/undo", data=form)
    browser.post(f"/tasks/{TASK}/review/skip", data=form)
    assert now(place).skipped_count == 1
    assert browser.post(f"/tasks/{TASK}/review/skip", data=form | {"csrf": "no"}).status_code == 422


def test_the_page_of_the_task_leads_to_the_open_review(place: Any) -> None:
    request = opened(place)
    browser = place.browser()
    page = browser.get(f"/tasks/{TASK}").text
    assert "0 of 30 rows answered" in page and f'href="/tasks/{TASK}/review"' in page
    form = {"csrf": csrf_of(page), "request_id": request.request_id}
    browser.post(f"/tasks/{TASK}/review/close", data=form)
    assert "A review is open" not in browser.get(f"/tasks/{TASK}").text
    page = browser.get(f"/tasks/{TASK}/review").text
    assert "No review is open" in page and "Earlier reviews" in page
    browser.post(f"/tasks/{TASK}/review/ask", data={"csrf": csrf_of(page), "row_count": "25"})
    assert len(now(place).rows) == 25


def test_spans_are_labelled_by_table_and_the_page_says_so(place: Any) -> None:
    request = opened(place, kind="extraction", labels=("what",), said='{"spans":[]}')
    browser = place.browser()
    page = browser.get(f"/tasks/{TASK}/review").text
    assert "Spans are labelled by CSV only." in page and 'class="choice"' not in page
    saved = browser.get(f"/tasks/{TASK}/review/table")
    first, second = (row.capture_id for row in request.rows[:2])
    assert first in saved.text
    table = f'capture_id,label\n{first},"{{""what"": ""parcel""}}"\n'
    form = {"csrf": csrf_of(page), "request_id": request.request_id}
    done = browser.post(f"/tasks/{TASK}/review/table", data=form, files={"table": ("t.csv", table.encode(), "text/csv")})
    assert done.status_code == 303
    assert '"text":"parcel"' in (now(place).row(first).value or "")
    wrong = {"table": ("t.csv", f"capture_id,label\n{second},nothing like spans\n".encode(), "text/csv")}
    assert "line 2" in browser.post(f"/tasks/{TASK}/review/table", data=form, files=wrong).text
    latin = {"table": ("t.csv", "capture_id,label\nx,é\n".encode("latin-1"), "text/csv")}
    assert "not UTF-8" in browser.post(f"/tasks/{TASK}/review/table", data=form, files=latin).text


@pytest.fixture
def keyboard(place: Any, signed_in: Any, tmp_path: Path) -> Iterator[Tab]:
    """A real browser, signed in to the place."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with signed_in(place) as url, tab(CHROMIUM, tmp_path, FLAGS, url) as page:
        yield page


def answered(page: Tab, count: int) -> None:
    """Wait until the page says so."""
    page.until(f"document.querySelector('.progress b').textContent === '{count}'")


@pytest.mark.browser
def test_rows_are_labelled_skipped_and_taken_back_by_keys_alone(place: Any, keyboard: Tab, tmp_path: Path) -> None:
    request = opened(place)
    keyboard.open(f"/tasks/{TASK}/review")
    for count, key in enumerate("1231", start=1):
        keyboard.press(key)
        answered(keyboard, count)
    assert [row.value for row in now(place).rows[:4]] == ["billing", "delivery", "returns", "billing"]
    keyboard.press("s")
    keyboard.until("document.body.innerText.includes('1 skipped')")
    keyboard.press("u")
    keyboard.until("!document.body.innerText.includes('skipped')")
    keyboard.press("u")
    answered(keyboard, 3)
    keyboard.press("?")
    keyboard.until("document.querySelector('#help').open")
    assert "undo the last answer or skip" in keyboard.text()
    keyboard.press("3")
    answered(keyboard, 4)
    assert now(place).rows[3].value == "returns"
    assert request.open_count - now(place).open_count == 4
    keyboard.picture(tmp_path / "review.png")
    assert (tmp_path / "review.png").stat().st_size > 20_000, "an empty page is smaller"


@pytest.mark.browser
def test_two_keys_before_the_next_row_is_there_answer_one_row(place: Any, keyboard: Tab) -> None:
    opened(place)
    keyboard.open(f"/tasks/{TASK}/review")
    keyboard.value(
        "for (const key of '123') document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})),"
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
    )
    answered(keyboard, 1)
    assert [row.value for row in now(place).rows[:2]] == ["billing", None]


@pytest.mark.browser
def test_of_many_labels_the_filter_takes_what_is_typed(place: Any, keyboard: Tab) -> None:
    opened(place, labels=MANY, said="label-00")
    keyboard.open(f"/tasks/{TASK}/review")
    keyboard.until("document.activeElement.id === 'filter'")
    keyboard.press(*"label-5", "ArrowDown", "Enter")
    answered(keyboard, 1)
    keyboard.until("document.activeElement.id === 'filter'")
    keyboard.press("Escape", "u")
    answered(keyboard, 0)
    keyboard.until("document.activeElement.id === 'filter'")
    keyboard.press(*"label-42", "Enter")
    answered(keyboard, 1)
    keyboard.until("document.activeElement.id === 'filter'")
    keyboard.press("Escape", "/", *"label-3", "Escape", "b")
    answered(keyboard, 2)
    assert [row.value for row in now(place).rows[:2]] == ["label-42", "label-10"]
    sources = {x.label.value: x.label.source for x in place.house.log.labelled_after(TASK, 0)}
    assert sources == {"label-51": "review", "label-42": "review:2", "label-10": "review"}


@pytest.mark.browser
def test_sets_are_checked_by_keys_and_saved_by_enter(place: Any, keyboard: Tab) -> None:
    opened(place, kind="multi-label", said=labels_value(["delivery"]))
    keyboard.open(f"/tasks/{TASK}/review")
    keyboard.press("1", "3", "2", "2", "Enter")
    answered(keyboard, 1)
    keyboard.press("Enter")
    answered(keyboard, 2)
    assert [json.loads(row.value or "") for row in now(place).rows[:2]] == [["billing", "returns"], []]
    assert CaptureId(now(place).rows[0].capture_id) in {x.capture.capture_id for x in place.house.log.labelled_since(TASK, 0)}
