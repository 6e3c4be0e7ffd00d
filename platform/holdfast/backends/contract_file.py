"""Task contracts as YAML files: every mistake at its line and column, all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from holdfast.domain.tasks import TaskContract, parse_contract
from holdfast.errors import ContractInvalid, Problem

MAX_BYTES = 256 * 1024
"""A contract of a thousand labels has about 30 KiB."""
MAX_DEPTH = 10
_TOP = "line 1, column 1"


def read_contract(path: Path) -> TaskContract:
    """The contract in a YAML file.

    Raises:
        ContractInvalid: with every mistake found; each place reads ``line L, column C`` and, where there is one, the field.
    """
    source = str(path)
    text = _text(path, source)
    root = _compose(text, source)
    doubled = _doubled(root, "")
    if doubled:
        raise ContractInvalid(source=source, problems=doubled)
    try:
        plain = yaml.safe_load(text)
        return parse_contract(plain, source=source)
    except yaml.YAMLError as error:
        raise ContractInvalid(source=source, problems=[_syntax(error, text)]) from None
    except ContractInvalid as error:
        located = sorted((_located(problem, root) for problem in error.problems), key=lambda pair: pair[0])
        raise ContractInvalid(source=source, problems=[problem for _, problem in located]) from None


def _text(path: Path, source: str) -> str:
    def refuse(place: str, message: str) -> ContractInvalid:
        return ContractInvalid(source=source, problems=[Problem(place, message)])

    if not path.is_file():
        raise refuse("the file", "is a folder" if path.is_dir() else "does not exist")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refuse("the file", f"cannot be read ({error.strerror})") from None
    if len(raw) > MAX_BYTES:
        raise refuse("the file", f"is larger than {MAX_BYTES // 1024} KiB; a contract is a short text")
    if b"\0" in raw:
        raise refuse("the file", "is binary; a contract is a YAML text")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse(f"line {line}", "is not UTF-8 text") from None
    if not text.strip():
        raise refuse(_TOP, "the file is empty; task, labels and floor are needed")
    return text


def _compose(text: str, source: str) -> yaml.Node:
    try:
        _check_events(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ContractInvalid(source=source, problems=[_syntax(error, text)]) from None
    if root is None:
        raise ContractInvalid(source=source, problems=[Problem(_TOP, "the file holds only comments; task, labels and floor are needed")])
    return root


def _check_events(text: str, source: str) -> None:
    """Refuse aliases, and nesting that would cost the parser quadratic time, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ContractInvalid(source=source, problems=[Problem(_mark(event.start_mark), "is nested too deeply")])
        if isinstance(event, yaml.AliasEvent):
            problem = Problem(_mark(event.start_mark), f"the alias *{event.anchor} is not allowed; write the value out")
            raise ContractInvalid(source=source, problems=[problem])


def _syntax(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        words = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(_mark(mark), f"is not YAML: {words}")
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = f"line {before.count(chr(10)) + 1}, column {error.position - before.rfind(chr(10))}"
        return Problem(place, f"the character {ord(text[error.position]):#06x} is not allowed in YAML")
    return Problem(_TOP, f"is not YAML: {error}")


def _doubled(node: yaml.Node, path: str) -> list[Problem]:
    """Fields that are written twice; YAML would silently take the last."""
    if not isinstance(node, yaml.MappingNode):
        return []
    problems, seen = [], set()
    for key, value in node.value:
        name = str(key.value)
        place = f"{path}.{name}" if path else name
        if name in seen:
            problems.append(Problem(f"{_mark(key.start_mark)}, {place}", "is written twice; keep one"))
        seen.add(name)
        problems.extend(_doubled(value, place))
    return problems


def _located(problem: Problem, root: yaml.Node) -> tuple[tuple[int, int], Problem]:
    """The position to sort by, and the problem with its place: of the key when it is no field, else of the value or the parent."""
    node, rest = root, problem.place
    mark: Any = root.start_mark
    while isinstance(node, yaml.MappingNode) and rest:
        found = _child(node, rest)
        if found is None:
            break
        key, node, rest = found
        mark = key.start_mark if rest or problem.message.startswith("is not a field") else node.start_mark
    place = _mark(mark)
    named = Problem(place if problem.place == "the file" else f"{place}, {problem.place}", problem.message)
    return (mark.line, mark.column), named


def _child(node: yaml.MappingNode, path: str) -> tuple[yaml.Node, yaml.Node, str] | None:
    """The pair whose key begins ``path``, and what of the path is left below it."""
    for key, value in node.value:
        name = str(key.value)
        if path == name:
            return key, value, ""
        if path.startswith(f"{name}."):
            return key, value, path[len(name) + 1 :]
    return None


def _mark(mark: Any) -> str:
    """PyYAML has one class of mark in Python and another in C; both have line and column from 0."""
    return f"line {mark.line + 1}, column {mark.column + 1}"
