"""The layout of the repository: what may lie where, how long files and functions are, and which names say nothing."""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "platform", "migrations", "jobs", "dashboards", "tests", "terraform",
    "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock",
}  # fmt: skip
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
ROOMS = {"api", "backends", "bootstrap", "cli", "domain", "flows", "serving", "testing"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50
LONGER = {"platform/holdfast/ports.py": 520, "platform/holdfast/errors.py": 360}
"""The sockets stand in one file by design (DESIGN 3), and so does the one error tree: mostly signatures and their facts."""


def sources(*folders: str) -> Iterator[Path]:
    """Python files that git tracks or would track."""
    patterns = [f"{folder}/{pattern}" for folder in folders for pattern in ("**.py", "*.py")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {ROOT / name for name in listed.split("\0") if name}
    assert found
    return (path for path in sorted(found) if path.exists())


def test_the_top_level_is_what_was_agreed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    top = {name.split("/")[0] for name in listed}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("root", ["platform", "jobs"])
def test_a_source_root_is_no_package(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists()


def test_the_platform_module_of_the_standard_library_wins() -> None:
    code = "import platform; print(platform.python_version())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.strip() == platform.python_version()


def test_rooms_are_the_drawn_ones() -> None:
    packages = {p.parent.name for p in (ROOT / "platform" / "holdfast").glob("*/__init__.py")}
    assert packages <= ROOMS


def test_no_file_is_longer_than_can_be_read() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources("platform", "jobs", "migrations")}
    long = {name: length for name, length in lengths.items() if length > LONGER.get(name, MAX_FILE_LINES)}
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for path in sources("platform", "jobs", "migrations/env.py", "migrations"):
        if path.parent.name == "versions":
            continue  # a migration is one list of steps
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno
                and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
            ):
                long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1
    assert long == {}


def test_no_name_says_nothing() -> None:
    named = {p for p in sources("platform", "jobs", "tests") if {p.stem, *p.relative_to(ROOT).parent.parts} & FORBIDDEN_NAMES}
    assert named == set()
