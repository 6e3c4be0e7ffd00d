"""Lines over real sockets: who is let in, what is cut, what is answered, and how a line ends."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from holdfast.backends.ray_fleet import frames
from holdfast.backends.ray_fleet.lines import OPEN_S, Line, Lines
from holdfast.backends.ray_fleet.listener import MOST_LINES, Listener
from holdfast.errors import PartUnavailable

TOKEN = b"a token of the cluster"
HOST = "127.0.0.1"
Questions = Sequence[tuple[str, str]]
Found = TypeVar("Found")


async def echo(questions: Questions) -> list[tuple[str, float, bytes]]:
    """Names the adapter and the text."""
    return [(f"{digest}: {text}", 0.5, b"\x00\xff") for digest, text in questions]


OPEN: list[Listener] = []


def a_listener(answer: Callable[[Questions], Awaitable[Sequence[object]]] = echo) -> Listener:
    """A replica's end, closed when the story ends."""
    OPEN.append(Listener(lambda: TOKEN, answer, HOST))
    return OPEN[-1]


def told(story: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
    """The end of a story; a story that hangs fails."""

    async def bounded() -> Found:
        try:
            async with asyncio.timeout(20):
                return await story()
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            while OPEN:
                await OPEN.pop().drain()
            await asyncio.sleep(0)

    return asyncio.run(bounded())


async def a_line(listener: Listener, token: bytes = TOKEN, name: str = "one") -> tuple[Lines, Line]:
    lines = Lines(lambda: token)
    await lines.open(name, *await listener.address())
    line = lines.best()
    assert line is not None
    return lines, line


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_questions_are_answered_in_order_with_everything_they_hold() -> None:
    async def story() -> Any:
        _, line = await a_line(a_listener())
        return await line.ask([("a", "hello"), ("b", "ça va 🙂")])

    assert told(story) == (("a: hello", 0.5, b"\x00\xff"), ("b: ça va 🙂", 0.5, b"\x00\xff"))


def test_several_batches_are_under_way_and_may_come_back_in_any_order() -> None:
    gates = {"slow": asyncio.Event(), "quick": asyncio.Event()}

    async def answer(questions: Questions) -> list[str]:
        await gates[questions[0][1]].wait()
        return [text for _, text in questions]

    async def story() -> None:
        _, line = await a_line(a_listener(answer))
        slow, quick = (asyncio.create_task(line.ask([("a", text)])) for text in ("slow", "quick"))
        await until(lambda: line.question_count == 2)
        gates["quick"].set()
        assert await quick == ("quick",)
        assert not slow.done()
        gates["slow"].set()
        assert await slow == ("slow",)
        assert line.question_count == 0

    told(story)


def test_a_stranger_is_cut_before_it_can_ask() -> None:
    asked: list[Questions] = []

    async def answer(questions: Questions) -> list[str]:
        asked.append(questions)
        return []

    async def story() -> None:
        listener = a_listener(answer)
        lines = Lines(lambda: b"another token")
        await lines.open("one", *await listener.address())
        assert lines.best() is None and len(lines) == 0
        reader, writer = await asyncio.open_connection(*await listener.address())
        await reader.readexactly(4 + frames.NONCE_BYTES)
        question = frames.pack((1, [("a", "hello")]))
        writer.write(frames.LENGTH.pack(len(question)) + question)
        assert await reader.read() == b""
        writer.close()

    told(story)
    assert asked == []


def test_a_false_replica_gets_no_question() -> None:
    heard: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Knows no token; repeats what it is told."""
        writer.write(frames.LENGTH.pack(frames.NONCE_BYTES) + b"n" * frames.NONCE_BYTES)
        proof = await reader.readexactly(4 + frames.UNPROVED_BYTES)
        writer.write(frames.LENGTH.pack(frames.PROOF_BYTES) + proof[-frames.PROOF_BYTES :])
        heard.append(await reader.read())
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(pretend, HOST, 0)
        lines = Lines(lambda: TOKEN)
        await lines.open("one", *server.sockets[0].getsockname()[:2])
        assert lines.best() is None
        await until(lambda: bool(heard))
        server.close()

    told(story)
    assert heard == [b""]


def test_a_proof_is_worth_nothing_on_another_connection() -> None:
    one, other = (frames.proof(TOKEN, frames.GATEWAY, nonce * frames.NONCE_BYTES, b"c" * frames.NONCE_BYTES) for nonce in (b"a", b"b"))
    assert one != other
    assert frames.proof(TOKEN, frames.REPLICA, b"a" * frames.NONCE_BYTES, b"c" * frames.NONCE_BYTES) != one


@pytest.mark.parametrize("length", [frames.UNPROVED_BYTES + 1, 2**32 - 1])
def test_before_the_proof_a_long_frame_cuts_the_line(length: int) -> None:
    async def story() -> bytes:
        reader, writer = await asyncio.open_connection(*await a_listener().address())
        await reader.readexactly(4 + frames.NONCE_BYTES)
        writer.write(struct.pack(">I", length))
        found = await reader.read()
        writer.close()
        return found

    assert told(story) == b""


@pytest.mark.parametrize(
    "payload", [b"\xc1", frames.pack("hello"), frames.pack((1,)), frames.pack((1, [("a", 7)])), frames.pack(("x", []))]
)
def test_what_is_no_micro_batch_cuts_the_line_and_whoever_waits_hears_of_it(payload: bytes) -> None:
    never = asyncio.Event()

    async def answer(questions: Questions) -> list[str]:
        await never.wait()
        return []

    async def story() -> None:
        lines, line = await a_line(a_listener(answer))
        waiting = asyncio.create_task(line.ask([("a", "hello")]))
        await until(lambda: line.question_count == 1)
        line.send(payload)
        with pytest.raises(PartUnavailable, match="its connection broke"):
            await waiting
        assert lines.best() is None

    told(story)


def test_a_replica_that_fails_says_why_and_keeps_its_line() -> None:
    async def answer(questions: Questions) -> list[str]:
        if questions[0][1] == "bad":
            raise RuntimeError("out of memory")
        return [text for _, text in questions]

    async def story() -> None:
        _, line = await a_line(a_listener(answer))
        with pytest.raises(PartUnavailable, match="out of memory"):
            await line.ask([("a", "bad")])
        assert line.usable
        assert await line.ask([("a", "good")]) == ("good",)

    told(story)


def test_a_line_on_which_a_batch_was_given_up_is_not_asked_until_it_speaks() -> None:
    gate = asyncio.Event()

    async def answer(questions: Questions) -> list[str]:
        await gate.wait()
        return [text for _, text in questions]

    async def story() -> None:
        lines, line = await a_line(a_listener(answer))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await line.ask([("a", "hello")])
        assert lines.best() is None and line.suspect and line.question_count == 0
        gate.set()
        await until(lambda: not line.suspect)
        assert lines.best() is line

    told(story)


def test_the_least_busy_line_is_asked_and_none_that_is_to_be_avoided_while_there_is_another() -> None:
    never = asyncio.Event()

    async def answer(questions: Questions) -> list[str]:
        await never.wait()
        return []

    async def story() -> None:
        lines = Lines(lambda: TOKEN)
        for name in ("one", "two"):
            await lines.open(name, *await a_listener(answer).address())
        first = lines.best()
        assert first is not None
        waiting = asyncio.create_task(first.ask([("a", "hello")]))
        await until(lambda: first.question_count == 1)
        second = lines.best()
        assert second is not None and second is not first
        assert lines.best(avoid=[second.replica]) is first
        assert lines.best(avoid=["one", "two"]) is second
        waiting.cancel()

    told(story)


def test_idle_lines_are_asked_in_turn() -> None:
    async def story() -> list[str]:
        lines = Lines(lambda: TOKEN)
        for name in ("one", "two"):
            await lines.open(name, *await a_listener().address())
        asked = []
        for _ in range(4):
            line = lines.best()
            assert line is not None
            await line.ask([("a", "hello")])
            asked.append(line.replica)
        return asked

    assert told(story) == ["one", "two", "one", "two"]


def test_a_replica_that_leaves_answers_what_is_under_way_and_is_asked_nothing_more() -> None:
    gate = asyncio.Event()

    async def answer(questions: Questions) -> list[str]:
        await gate.wait()
        return [text for _, text in questions]

    async def story() -> None:
        listener = a_listener(answer)
        address = await listener.address()
        lines, line = await a_line(listener)
        waiting = asyncio.create_task(line.ask([("a", "hello")]))
        await until(lambda: line.question_count == 1)
        drained = asyncio.create_task(listener.drain())
        await until(lambda: lines.best() is None)
        await lines.open("one", *address)
        assert lines.best() is None, "it lets nobody in any more"
        assert not drained.done()
        gate.set()
        assert await waiting == ("hello",)
        await drained

    told(story)


def test_what_was_sent_before_the_word_arrived_is_answered_or_refused_at_once() -> None:
    async def story() -> None:
        listener = a_listener()
        _, line = await a_line(listener)
        drained = asyncio.create_task(listener.drain())
        answer = asyncio.create_task(line.ask([("a", "hello")]))
        await drained
        with_answer = await asyncio.gather(answer, return_exceptions=True)
        assert with_answer[0] == (("a: hello", 0.5, b"\x00\xff"),) or isinstance(with_answer[0], PartUnavailable)

    told(story)


def test_callers_above_the_bound_are_closed_at_once() -> None:
    async def story() -> None:
        address = await a_listener().address()
        held = [await asyncio.open_connection(*address) for _ in range(MOST_LINES)]
        reader, writer = await asyncio.open_connection(*address)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(4 + frames.NONCE_BYTES)
        for _, one in [*held, (reader, writer)]:
            one.transport.abort()

    told(story)


def test_nobody_listens_is_no_line_and_no_error_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> int:
        listener = a_listener()
        address = await listener.address()
        await listener.drain()
        lines = Lines(lambda: TOKEN)
        for _ in range(3):
            await lines.open("one", *address)
        return len(lines)

    assert told(story) == 0
    assert len(caplog.records) == 1
    assert "it is asked by Ray's handle" in caplog.text


def test_who_takes_the_call_and_says_nothing_holds_nobody_up_for_long() -> None:
    gone = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Waits for the other side to give up."""
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        gone.set()

    async def story() -> None:
        server = await asyncio.start_server(mute, HOST, 0)
        lines = Lines(lambda: TOKEN)
        async with asyncio.timeout(OPEN_S * 5):
            await lines.open("one", *server.sockets[0].getsockname()[:2])
        assert lines.best() is None and len(lines) == 0
        await gone.wait()
        server.close()
        await asyncio.sleep(0)

    told(story)
