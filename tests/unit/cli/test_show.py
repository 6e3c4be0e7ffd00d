"""What commands print."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from holdfast.cli import show
from holdfast.testing.clock import NOON


def test_off_a_terminal_a_table_is_one_line_per_row_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("task", "quality"), [("tickets", 0.912345), ("a\nb", None)])
    assert capsys.readouterr().out == "task\tquality\ntickets\t0.9123\na b\t-\n"


def test_json_keeps_letters_and_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    show.as_json({"at": NOON, "why": "größer"})
    out = capsys.readouterr().out
    assert "größer" in out
    assert json.loads(out)["at"] == NOON.isoformat()


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s ago"), (300, "5 min ago"), (7200, "2 h ago"), (172_800, "2 d ago")])
def test_how_long_ago_is_told_in_one_unit(seconds: int, words: str) -> None:
    assert show.ago(NOON, lambda: NOON + timedelta(seconds=seconds)) == words


def test_a_digest_is_shortened_to_what_people_compare() -> None:
    assert show.short("sha256:" + "ab" * 32) == "abababababab"
    assert show.short(None) is None
