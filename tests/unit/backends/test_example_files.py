"""Files of examples and history: what is read, and where it is refused."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from holdfast.backends.example_files import read_examples, read_history, read_labels
from holdfast.domain.datasets import Example
from holdfast.errors import DataInvalid

TWO = (Example(text="where is it, please", label="delivery"), Example(text="pay", label="billing"))


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def refusal(path: Path, content: str | bytes | None = None) -> str:
    if content is not None:
        write(path, content)
    with pytest.raises(DataInvalid) as caught:
        read_examples(path)
    assert caught.value.mend
    return caught.value.message


def test_the_same_rows_come_out_of_every_format(tmp_path: Path) -> None:
    rows = [{"text": e.text, "label": e.label} for e in TWO]
    csv = 'text,label\n"where is it, please",delivery\npay,billing\n'
    jsonl = "\n".join(json.dumps(row) for row in rows) + "\n"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    files = [
        write(tmp_path / "a.csv", csv), write(tmp_path / "a.csv.gz", csv), write(tmp_path / "a.jsonl", jsonl),
        write(tmp_path / "a.jsonl.gz", jsonl), write(tmp_path / "a.tsv", "text\tlabel\nwhere is it, please\tdelivery\npay\tbilling\n"),
        tmp_path / "a.parquet",
    ]  # fmt: skip
    assert [read_examples(file) for file in files] == [TWO] * len(files)


def test_columns_are_guessed_from_usual_names_or_taken_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "id,Question,intent,other\n1,pay,billing,x\n")
    assert read_examples(file)[0] == TWO[1]
    assert read_examples(file, label="other")[0].label == "x"


def test_a_list_of_labels_counts_where_it_holds_exactly_one(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"t{n}", "sigs": sigs}) for n, sigs in enumerate([["node"], [], ["a", "b"], ["apps"]])]
    told: list[str] = []
    found = read_examples(write(tmp_path / "a.jsonl", "\n".join(lines)), label="sigs", say=told.append)
    assert [e.label for e in found] == ["node", "apps"]
    assert told == ["2 of 4 rows were left out: column sigs holds no or several values there"]


def test_history_is_sorted_by_time_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    rows = "title,primary_cat,created\nc,x,2026-03-02\na,x,2026-03-01\nb,x,2026-03-01T00:00:00Z\nd,x,1772582400\n"
    found = read_history(write(tmp_path / "a.csv", rows))
    assert [(row.text, row.index) for row in found] == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
    assert found[3].at == datetime(2026, 3, 4, tzinfo=UTC)


def test_a_year_and_milliseconds_are_times_and_words_are_not(tmp_path: Path) -> None:
    lines = '{"text":"a","label":"x","time":2020}\n{"text":"b","label":"x","time":1772323200000}\n'
    assert [row.at.year for row in read_history(write(tmp_path / "a.jsonl", lines))] == [2020, 2026]
    with pytest.raises(DataInvalid, match=r"'soon' is not a time \(at line 2, column time\)"):
        read_history(write(tmp_path / "b.csv", "text,label,time\na,x,soon\n"))


def test_pairs_of_labels_are_read(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path / "a.csv", "capture_id,label\nc1,billing\n")) == (("c1", "billing"),)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "it is empty"),
        ("a.csv", "text,label\n", "no usable row"),
        ("a.csv", "text,label\na,x\n,y\n", "the text is empty (at line 3, column text)"),
        ("a.csv", "text,label\na,x\nb,\n", "the label is empty (at line 3, column label)"),
        ("a.csv", "text,label\na,x\nb\n", "it has 1 cells, the header has 2 (at line 3)"),
        ("a.csv", "first,second\na,x\n", "no column is named like a text; the columns are first, second (at line 2)"),
        ("a.csv", "text,text,label\na,b,c\n", "the column 'text' is there twice"),
        ("a.csv", 'text,label\n"a"b,x\n', "it is not CSV"),
        ("a.csv", b"text,label\n\xff\xfe,x\n", "is not UTF-8 (at line 2)"),
        ("a.csv", b"text,label\n\x00\x01,x\n", "it is binary (at line 2)"),
        ("a.csv.gz", b"", "it is empty"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{oops\n', "it is not JSON (at line 2, column 2)"),
        ("a.jsonl", "[1]\n", "it is not a JSON object"),
        ("a.jsonl", '{"text": 5, "label": "x"}\n', "it is not a text but 5 (at line 1, column text)"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "the value is missing (at line 1, column label)"),
        ("a.jsonl", json.dumps({"text": "a" * 20_001, "label": "x"}), "20001 characters; 20000 are allowed"),
        ("a.parquet", "PAR1 not at all", "it is not a readable Parquet file"),
        ("a.xlsx", "PK", "its name does not say its format"),
    ],
)
def test_what_cannot_be_used_is_refused_with_row_and_column(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    assert expected in refusal(tmp_path / name, content)


def test_a_broken_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + b"a,x\n" * 1000)
    for raw in (b"not packed at all", whole[:-20]):
        (tmp_path / "a.csv.gz").write_bytes(raw)
        assert "it does not unpack" in refusal(tmp_path / "a.csv.gz")


def test_a_missing_file_and_a_missing_column_are_told(tmp_path: Path) -> None:
    assert "it does not exist" in refusal(tmp_path / "none.csv")
    with pytest.raises(DataInvalid, match="no column 'body'; the columns are text, label"):
        read_examples(write(tmp_path / "a.csv", "text,label\na,x\n"), text="body")
