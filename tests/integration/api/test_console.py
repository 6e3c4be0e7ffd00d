"""The console pages: what stands on them, what their buttons do, and that a real browser shows them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast.domain.diagnosis import Diagnosis
from holdfast.testing.record_builders import a_capture, an_alert

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,720",
]  # fmt: skip


def csrf_of(page: str) -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="csrf" value="([^"]{20,})"', page)
    assert found is not None
    return found[1]


def text_of(page: str) -> str:
    """The words of a page, without tags, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_a_browser_without_a_session_is_sent_to_the_door(place: Any) -> None:
    nobody = place.client("")
    assert nobody.get("/").headers["location"] == "/login"
    assert "API key" in nobody.get("/login").text
    wrong = nobody.post("/login", data={"key": "hf_wrong"})
    assert wrong.status_code == 401
    assert "not valid" in wrong.text


def test_the_session_cookie_is_out_of_reach_of_scripts_and_of_other_sites(place: Any) -> None:
    cookie = place.client("").post("/login", data={"key": place.key}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert place.key.lower() not in cookie


def test_signing_out_ends_the_session(place: Any) -> None:
    browser = place.browser()
    token = browser.cookies["holdfast_session"]
    browser.post("/logout", data={"csrf": csrf_of(browser.get("/").text)})
    assert browser.get("/", headers={"cookie": f"holdfast_session={token}"}).status_code == 303


def test_an_empty_fleet_says_what_to_do_first(place: Any) -> None:
    words = text_of(place.browser().get("/").text)
    assert "No task yet" in words
    assert "holdfast task create" in words


def test_the_fleet_page_says_where_the_false_alarm_budget_went(fleet: Any) -> None:
    words = text_of(fleet.browser().get("/").text)
    assert "False-alarm budget" in words
    assert "alarms opened" in words or "alarm opened" in words


def test_the_fleet_is_ordered_by_urgency_and_every_row_has_reason_step_and_action(fleet: Any) -> None:
    page = fleet.browser().get("/").text
    words = text_of(page)
    assert "2 of 4 tasks need you · loop running · data fresh 10 s ago" in words
    assert re.findall(r'<tr class="row-([a-z-]+)" id="task-([a-z]+)"', page) == [
        ("needs-you", "tickets"), ("needs-you", "fresh"), ("healing", "intents"), ("healthy", "quiet"),
    ]  # fmt: skip
    for expected in (
        "the meaning of &#39;delivery&#39; changed",
        "Promote v2",
        "training 62%",
        "waits for you",
        "100 labels, newest 21 s old",
        "Bring data",
    ):
        assert expected in words, expected


def test_unknown_is_never_shown_as_zero_or_as_healthy(fleet: Any) -> None:
    page = fleet.browser().get("/").text
    row = page[page.index('id="task-fresh"') :].split("</tr>")[0]
    assert "unknown" in row
    assert "0%</b>" not in row
    assert "s-healthy" not in row
    assert "Unknown. Labels of captures make this plot" in text_of(fleet.browser().get("/tasks/fresh").text)


def test_the_page_of_a_task_shows_both_rungs_the_verdict_in_words_and_the_plot(fleet: Any) -> None:
    page = fleet.browser().get("/tasks/tickets").text
    words = text_of(page)
    for expected in (
        "beside it, for comparison", "right on 31 % more of the recent rows", "✓ pass", "concept change", "What fits: retrain.",
        "56% (46 to 65%)", "not enough data", "would have found a rise of errors by 4.3 points",
        "a false alarm comes within n events with probability at most n / 250,000", "every criterion is met", "v1 live",
        "17 taught", "40 beyond the share of robot", "Suspected label errors (1)",
    ):  # fmt: skip
        assert expected in words, expected
    assert '<svg class="plot"' in page
    assert 'class="mark alert"' in page
    assert 'style="' not in page, "the policy of the page forbids inline styles"


def test_a_refused_deed_sets_the_commands_that_mend_it_as_such(fleet: Any) -> None:
    page = fleet.browser().get("/tasks/<none>").text
    assert "There is no task &#39;&lt;none&gt;&#39;" in page
    assert "See what there is with <code>holdfast task list</code>" in page


def test_a_change_is_dated_and_never_named_by_a_position_in_the_log_of_the_home(fleet: Any) -> None:
    words = text_of(fleet.browser().get("/tasks/tickets").text)
    at = next(c for c in fleet.house.log.after("tickets", 0) if c.seq == 410).captured_at  # the onset of its quality monitor and alert
    assert words.count(f"about {at:%d %b %H:%M:%S}") == 2
    for position in ("capture 410", "about 410", "capture 612"):
        assert position not in words


def test_shadow_copies_are_neither_counted_nor_listed_among_the_captures(fleet: Any) -> None:
    before = fleet.house.log.count("quiet")
    copies = [a_capture(n, capture_id=f"quiet-{n}~shadow", task="quiet", text="a copy", route="shadow") for n in range(20)]
    fleet.house.log.append(copies)
    page = fleet.browser().get("/tasks/quiet").text
    assert f"<dd>{before:,}</dd>" in page
    assert "a copy" not in page
    assert page.count('name="capture_id"') > 0


def test_what_a_stranger_wrote_is_text_and_never_markup(fleet: Any) -> None:
    page = fleet.browser().get("/tasks/tickets").text + fleet.browser().get("/tasks/intents").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_promote_button_promotes_and_a_second_press_is_refused_with_a_reason(fleet: Any) -> None:
    browser = fleet.browser()
    page = browser.get("/tasks/tickets").text
    found = re.search(r'name="digest" value="([^"]+)"><input type="hidden" name="expected" value="(\d+)"', page)
    assert found is not None
    form = {"csrf": csrf_of(page), "digest": found[1], "expected": found[2], "reason": "looked at it"}
    done = browser.post("/tasks/tickets/promote", data=form, headers={"origin": "http://127.0.0.1:8600"})
    assert (done.status_code, done.headers["location"]) == (303, "/tasks/tickets#versions")
    with fleet.house.unit_of_work() as work:
        made = work.promotions.of_task("tickets")[0]
    assert (made.digest, made.actor, made.reason) == (found[1], "admin", "looked at it")
    stale = browser.post("/tasks/tickets/promote", data=form)
    assert stale.status_code == 409
    assert "What to do" in stale.text
    assert "warming" in text_of(browser.get("/tasks/tickets").text)


def test_labelling_and_answering_an_alert_work_without_scripts(fleet: Any) -> None:
    browser = fleet.browser()
    page = browser.get("/tasks/tickets").text
    capture = re.search(r'name="capture_id" value="([^"]+)"', page)
    alert = re.search(r'action="(/tasks/tickets/alerts/[^"]+/resolve)"', page)
    assert capture is not None
    assert alert is not None
    before = fleet.house.log.label_count("tickets")
    browser.post("/tasks/tickets/label", data={"csrf": csrf_of(page), "capture_id": capture[1], "value": "returns"})
    assert fleet.house.log.label_count("tickets") == before + 1
    assert browser.post(alert[1], data={"csrf": csrf_of(page)}).status_code == 303
    assert "resolved" in text_of(browser.get("/tasks/tickets").text)


def test_pressing_retrain_twice_on_one_page_asks_once(fleet: Any) -> None:
    browser = fleet.browser()
    page = browser.get("/tasks/quiet").text
    key = re.search(r'name="key" value="([^"]+)"', page)
    assert key is not None
    for _ in range(2):
        assert browser.post("/tasks/quiet/retrain", data={"csrf": csrf_of(page), "key": key[1], "reason": "r"}).status_code == 303
    with fleet.house.unit_of_work() as work:
        assert len(work.retrainings.of_task("quiet")) == 1


def test_while_inputs_come_broken_the_retrain_form_says_so_and_wants_to_be_told_to_go_on(fleet: Any) -> None:
    broken = Diagnosis(cause="upstream break", action="wait", sentence="38% of recent inputs are empty, against 0% before")
    with fleet.house.unit_of_work() as work:
        work.alerts.put(an_alert(7, task="quiet", diagnosis=broken))
        work.commit()
    browser = fleet.browser()
    page = browser.get("/tasks/quiet").text
    assert "Held: alert" in page
    form = {"csrf": csrf_of(page), "key": "k", "reason": "r"}
    refused = browser.post("/tasks/quiet/retrain", data=form)
    assert refused.status_code == 409
    assert "No training of task quiet is started" in text_of(refused.text)
    assert browser.post("/tasks/quiet/retrain", data=form | {"anyway": "true"}).status_code == 303
    assert "forced over alert" in browser.get("/tasks/quiet").text


@pytest.mark.parametrize("token", ["", "x" * 43])
def test_a_form_of_another_site_changes_nothing(fleet: Any, token: str) -> None:
    browser = fleet.browser()
    form = {"csrf": token, "key": "k", "reason": "r"}
    assert browser.post("/tasks/quiet/retrain", data=form).status_code == 422
    good = form | {"csrf": csrf_of(browser.get("/").text)}
    for origin in ("https://evil.example", "null"):
        assert browser.post("/tasks/quiet/retrain", data=good, headers={"origin": origin}).status_code == 403
    with fleet.house.unit_of_work() as work:
        assert work.retrainings.of_task("quiet") == ()


def test_a_report_opens_in_a_sandbox_and_only_files_of_records_are_served(fleet: Any) -> None:
    browser = fleet.browser()
    page = browser.get("/tasks/tickets").text
    link = re.search(r'href="(/tasks/tickets/reports/[^"]+)"', page)
    assert link is not None
    report = browser.get(link[1])
    assert "<h1>Drift</h1>" in report.text
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in report.headers["content-security-policy"]
    assert browser.get("/tasks/quiet/reports/" + link[1].rsplit("/", 1)[1]).status_code == 404
    (fleet.folder / "reports" / "1.html").unlink()
    (fleet.folder / "reports" / "1.html").symlink_to(fleet.folder / "keys" / "admin.key")
    assert browser.get(link[1]).status_code == 404


def chromium(url: str, folder: Path, *actions: str) -> str:
    """What headless Chromium prints for a page."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *actions, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


@pytest.mark.browser
def test_chromium_shows_task_reason_step_and_action_of_the_fleet(signed_in_url: str, tmp_path: Path) -> None:
    words = text_of(chromium(signed_in_url, tmp_path, "--dump-dom"))
    for expected in ("tickets", "the meaning of 'delivery' changed", "judged", "Promote v2", "training 62%", "2 of 4 tasks need you"):
        assert expected in words, expected


@pytest.mark.browser
def test_chromium_draws_the_page_of_a_task(signed_in_url: str, tmp_path: Path) -> None:
    shot = tmp_path / "task.png"
    chromium(f"{signed_in_url}/tasks/tickets", tmp_path, f"--screenshot={shot}")
    assert shot.read_bytes()[:4] == b"\x89PNG"
    assert shot.stat().st_size > 20_000, "an empty page is smaller"
    dom = chromium(f"{signed_in_url}/tasks/tickets", tmp_path, "--dump-dom")
    assert 'class="plot"' in dom
    assert "Promote v2" in text_of(dom)
