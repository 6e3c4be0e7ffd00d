"""`holdfast captures`: what is said of the log by the command that a person runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import cli
from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap import home as bootstrap_home
from holdfast.settings import read_settings
from holdfast.testing.record_builders import a_capture


@pytest.fixture
def home(tmp_path: Path) -> Path:
    settings = read_settings(tmp_path / "home")
    bootstrap_home.make_home(settings)
    return settings.folder


def add(home: Path, *numbers: int) -> None:
    database = SqlDatabase(read_settings(home).database)
    database.log().append([replace(a_capture(n), producer="gateway-a", number=n) for n in numbers])
    database.dispose()


def test_gaps_counts_what_is_missing_and_fails_when_something_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(home, 1, 2, 3)
    assert cli.run(["--home", str(home), "captures", "gaps"]) == cli.OK
    assert "gateway-a" in capsys.readouterr().out
    add(home, 7, 9)
    assert cli.run(["--home", str(home), "captures", "gaps"]) == cli.FAILED
    assert "4 to 6, 8" in capsys.readouterr().out
    assert cli.run(["--home", str(home), "captures", "gaps", "--json"]) == cli.FAILED
    said = json.loads(capsys.readouterr().out)
    assert (said["missing_count"], said["producers"][0]["missing"]) == (4, [[4, 6], [8, 8]])
