"""Contracts as files: every mistake at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.backends.contract_file import MAX_BYTES, read_contract
from holdfast.errors import ContractInvalid

EIGHT_LINES = """\
task: support-tickets
labels:
  - billing
  - delivery
  - account
floor: 0.85
retraining:
  min_labels: 100
"""


def mistakes(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ContractInvalid) as caught:
        read_contract(path)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "contract.yaml"


def test_eight_lines_suffice(file: Path) -> None:
    file.write_text(EIGHT_LINES)
    contract = read_contract(file)
    assert (contract.task, contract.labels, contract.retraining.min_labels) == ("support-tickets", ("billing", "delivery", "account"), 100)


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    found = mistakes(file, "task: Support\nlabels: [a, b]\nretraining:\n  min_labels: 3\n  foo: 1\n  lora:\n    rank: x\nfloor: 2\n")
    assert [problem.split(":")[0] for problem in found] == [
        "line 4, column 15, retraining.min_labels", "line 5, column 3, retraining.foo", "line 7, column 11, retraining.lora.rank",
        "line 8, column 8, floor",
    ]  # fmt: skip


def test_a_missing_field_is_told_at_its_parent(file: Path) -> None:
    assert mistakes(file, "task: a\nlabels: [a, b]\n") == ["line 1, column 1, floor: is required"]


def test_a_field_written_twice_is_refused(file: Path) -> None:
    assert mistakes(file, EIGHT_LINES + "floor: 0.5\n") == ["line 9, column 1, floor: is written twice; keep one"]


def test_a_label_that_yaml_reads_as_a_number_is_told(file: Path) -> None:
    assert mistakes(file, "task: a\nlabels: [yes, b]\nfloor: 0.5\n")[0].startswith("line 2, column 9, labels: must be a list of texts")


def test_a_mistake_of_yaml_is_told_with_its_place(file: Path) -> None:
    assert mistakes(file, "task: [a\nb: c")[0].startswith("line 2, column 2: is not YAML")
    assert mistakes(file, "task: a\x07b")[0] == "line 1, column 8: the character 0x0007 is not allowed in YAML"
    assert mistakes(file, "task: !!python/object:os.system {}\nlabels: [a, b]\nfloor: 0.5")[0].startswith("line 1, column 7")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"  \n\n", "the file is empty"),
        (b"# nothing\n", "only comments"),
        (b"task: a\0b", "is binary"),
        (b"task: \xff\xfe", "is not UTF-8"),
        (b"x: " + b"a" * MAX_BYTES, "is larger than"),
        (b"- a\n- b\n", "must be a mapping"),
        (b"task: &a x\nlabels: [*a, *a]\nfloor: 0.1", "alias"),
        (b"[" * 20_000, "is nested too deeply"),
        (b"task: 2026-01-01\nlabels: [a, b]\nfloor: .nan\n", "must be a text"),
    ],
)
def test_a_file_that_is_no_contract_is_refused_with_the_reason(file: Path, content: bytes, expected: str) -> None:
    assert expected in " ".join(mistakes(file, content))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.yaml", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(ContractInvalid, match=words):
            read_contract(path)
