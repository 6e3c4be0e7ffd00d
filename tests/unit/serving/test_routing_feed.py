"""The routing feed follows the published table, never backwards, and goes on without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from holdfast.domain.routing import RoutingTable
from holdfast.serving.routing_feed import RoutingFeed, newest
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import TASK, a_digest, a_route


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def feed(database: MemoryDatabase) -> Iterator[RoutingFeed]:
    feed = RoutingFeed(database.unit_of_work, refresh_s=0.01)
    yield feed
    feed.close()


def publish(database: MemoryDatabase, name: str, generation: int) -> None:
    with database.unit_of_work() as work:
        work.assignments.publish(a_route(champion=a_digest(name), generation=generation))
        work.commit()


def test_a_published_route_is_followed_after_a_look(database: MemoryDatabase, feed: RoutingFeed) -> None:
    assert feed.route(TASK) is None
    publish(database, "first", 1)
    feed.look()
    publish(database, "second", 2)
    feed.look()
    route = feed.route(TASK)
    assert route is not None
    assert (route.champion, feed.generation) == (a_digest("second"), 2)


def test_a_dead_database_leaves_the_last_table_in_force_and_is_named(database: MemoryDatabase, feed: RoutingFeed) -> None:
    publish(database, "first", 1)
    feed.look()
    database.down = True
    feed.look()
    assert feed.route(TASK) is not None
    assert feed.failing is not None
    database.down = False
    feed.look()
    assert feed.failing is None


def test_an_older_generation_is_never_followed() -> None:
    held = RoutingTable(generation=7, routes={TASK: a_route(champion=a_digest("new"), generation=7)})
    read = RoutingTable(generation=6, routes={TASK: a_route(champion=a_digest("old"), generation=6)})
    assert newest(held, read).routes[TASK].champion == a_digest("new")
    assert newest(held, read).generation == 7


def test_a_revoked_key_is_turned_away_after_a_look(database: MemoryDatabase, feed: RoutingFeed) -> None:
    with database.unit_of_work() as work:
        work.keys.add(name="me", key_hash=hashlib.sha256(b"hf_secret").hexdigest(), created_at=NOON)
        work.commit()
    feed.look()
    assert feed.admits("hf_secret")
    assert not feed.admits("hf_guess")
    with database.unit_of_work() as work:
        work.keys.revoke("me")
        work.commit()
    feed.look()
    assert not feed.admits("hf_secret")
