"""A request takes the same way whenever it is replayed, and a canary gets its share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.ids import TaskName
from holdfast.domain.routing import RoutingTable, choose, route_of, share_of, versions_routed, versions_wanted
from holdfast.testing.builders import a_digest, a_route, an_assignment

OLD, NEW = a_digest("old"), a_digest("new")
CANARY = a_route(champion=OLD, challenger=NEW, share_canary=0.2, generation=4)


@given(st.text(max_size=40))
def test_a_replayed_request_takes_the_same_way(request_id: str) -> None:
    request_id = request_id.encode(errors="ignore").decode()
    assert choose(CANARY, request_id) == choose(CANARY, request_id)
    assert 0 <= share_of("tickets", request_id) < 1


def test_a_canary_gets_its_share_and_says_so() -> None:
    choices = [choose(CANARY, f"request-{n}") for n in range(20_000)]
    canaries = [c for c in choices if c.route == "canary"]
    # Binomial with n = 20,000 and p = 0.2: five standard deviations are 283.
    assert abs(len(canaries) - 4_000) < 283
    assert {c.digest for c in canaries} == {NEW}
    assert {(c.digest, c.route) for c in choices if c.route != "canary"} == {(OLD, "champion")}
    assert {c.generation for c in choices} == {4}


def test_a_larger_share_keeps_every_request_that_was_canary() -> None:
    small = a_route(champion=OLD, challenger=NEW, share_canary=0.1)
    large = a_route(champion=OLD, challenger=NEW, share_canary=0.3)
    ids = [f"r{n}" for n in range(2_000)]
    first = {i for i in ids if choose(small, i).route == "canary"}
    assert first <= {i for i in ids if choose(large, i).route == "canary"}


@pytest.mark.parametrize(("share", "route"), [(0.0, "champion"), (1.0, "canary")])
def test_no_share_is_nobody_and_the_whole_share_is_everybody(share: float, route: str) -> None:
    table = a_route(champion=OLD, challenger=NEW, share_canary=share)
    assert {choose(table, f"r{n}").route for n in range(500)} == {route}


def test_a_shadow_gets_a_copy_and_never_answers() -> None:
    choice = choose(a_route(champion=OLD, challenger=NEW, shadow=True), "r1")
    assert (choice.digest, choice.shadow, choice.route) == (OLD, NEW, "champion")


def test_a_share_without_a_challenger_is_the_champion_s() -> None:
    choice = choose(a_route(champion=OLD, share_canary=1.0, shadow=True), "r1")
    assert (choice.digest, choice.shadow) == (OLD, None)


def test_tasks_split_the_same_request_independently() -> None:
    ids = [f"r{n}" for n in range(4_000)]
    both = sum(share_of("a", i) < 0.5 and share_of("b", i) < 0.5 for i in ids)
    assert abs(both - 1_000) < 140  # five standard deviations of binomial(4000, 0.25)


def test_a_route_is_what_its_assignment_asks_for() -> None:
    route = route_of(an_assignment(champion=OLD, challenger=NEW, share_canary=0.2, generation=4))
    assert route == CANARY


def test_champions_challengers_and_previous_champions_are_wanted_on_every_replica() -> None:
    first = an_assignment(champion=NEW, previous=OLD)
    second = an_assignment(task=TaskName("other"), champion=a_digest("x"), challenger=a_digest("y"))
    wanted = versions_wanted({"tickets": first, "other": second}, RoutingTable())
    assert wanted == {NEW, OLD, a_digest("x"), a_digest("y")}
    assert versions_wanted({}, RoutingTable()) == frozenset()


def test_what_the_table_names_is_wanted_though_two_newer_champions_were_refused() -> None:
    table = RoutingTable(generation=4, routes={"tickets": CANARY})
    assert versions_wanted({"tickets": an_assignment(champion=a_digest("3"), previous=a_digest("2"))}, table) >= {OLD, NEW}


def test_the_champion_to_come_and_what_the_table_names_get_traffic_and_the_previous_champion_does_not() -> None:
    table = RoutingTable(generation=4, routes={"tickets": CANARY})
    assert versions_routed({"tickets": an_assignment(champion=a_digest("3"), previous=a_digest("2"))}, table) == {OLD, NEW, a_digest("3")}
    assert versions_routed({}, RoutingTable()) == frozenset()
