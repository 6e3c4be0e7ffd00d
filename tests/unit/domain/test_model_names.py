"""A model name means exactly one thing, or nothing."""

from __future__ import annotations

import pytest

from holdfast.domain.ids import TaskName, bare
from holdfast.domain.model_names import Catalogue, resolve
from holdfast.domain.routing import RoutingTable
from holdfast.errors import NotFound, VersionNotHeld
from holdfast.testing.record_builders import TASK, a_digest, a_route, a_version

FIRST, SECOND, THIRD, OTHER = (a_digest(name) for name in ("first", "second", "third", "other"))
VERSIONS = [
    a_version(), a_version(digest=SECOND, number=2), a_version(digest=THIRD, number=3),
    a_version(digest=OTHER, task=TaskName("calls"), base="large"),
]  # fmt: skip
TABLE = RoutingTable(
    generation=9,
    routes={
        TASK: a_route(challenger=SECOND, share_canary=1.0, generation=9),
        "calls": a_route(task=TaskName("calls"), champion=OTHER, generation=3),
    },
)
CATALOGUE = Catalogue(
    versions={v.digest: v for v in VERSIONS}, numbers={(v.task, v.number): v.digest for v in VERSIONS}, held=frozenset({FIRST}),
    bases={"minilm": "sha256:aa", "large": "sha256:bb"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "digest", "route"),
    [
        ("tickets", SECOND, "canary"),
        ("tickets@champion", FIRST, "champion"),
        ("tickets@challenger", SECOND, "pinned"),
        ("tickets@1", FIRST, "pinned"),
        ("tickets@2", SECOND, "pinned"),
        ("minilm:tickets@1", FIRST, "pinned"),
        ("minilm:tickets", SECOND, "canary"),
        (f"minilm:{FIRST}", FIRST, "pinned"),
        ("large:calls", OTHER, "champion"),
        ("minilm", bare("minilm"), "pinned"),
    ],
)
def test_a_name_means_one_version(name: str, digest: str, route: str) -> None:
    choice = resolve(name, TABLE, CATALOGUE).choice("r-1")
    assert (choice.digest, choice.route) == (digest, route)


@pytest.mark.parametrize(
    "name",
    ["", "nowhere", "tickets@", "tickets@17", "tickets@-1", "tickets@best", "tickets@٣", "tickets@1@2", "calls@challenger", "large:tickets",
     "minilm:calls@1", "huge:tickets", "minilm:", "minilm@champion", "minilm:minilm", f"large:{FIRST}", f"minilm:{FIRST[:40]}",
     "tickets@" + "9" * 5000],
)  # fmt: skip
def test_what_is_not_served_is_not_found_and_never_means_the_champion(name: str) -> None:
    with pytest.raises(NotFound):
        resolve(name, TABLE, CATALOGUE)


@pytest.mark.parametrize("name", ["tickets@3", f"minilm:{THIRD}"])
def test_a_version_that_no_replica_holds_is_a_conflict(name: str) -> None:
    with pytest.raises(VersionNotHeld):
        resolve(name, TABLE, CATALOGUE)


def test_all_requests_of_a_session_take_the_same_way() -> None:
    half = RoutingTable(generation=9, routes={TASK: a_route(challenger=SECOND, share_canary=0.5, generation=9)})
    target = resolve("tickets", half, CATALOGUE)
    assert {target.choice("session-7").digest for _ in range(20)} == {target.choice("session-7").digest}
    assert {target.choice(f"request-{n}").digest for n in range(40)} == {FIRST, SECOND}
