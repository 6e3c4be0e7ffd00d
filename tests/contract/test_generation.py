"""What every engine that writes texts must keep; a real backend joins the parameters when there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.domain.ids import AdapterDigest
from holdfast.errors import DeadlinePassed, NotFound
from holdfast.ports import GenerationEngine, Question
from holdfast.testing.twins import EchoWriter

DIGEST = AdapterDigest("sha256:one")


@pytest.fixture(params=[lambda: EchoWriter(word_s=0.01)], ids=["twin"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> GenerationEngine:
    made: GenerationEngine = request.param()
    made.load(DIGEST, tmp_path)
    return made


def ask(engine: GenerationEngine, *texts: str, max_tokens: int = 16, deadline_s: float = 60.0, digest: str = DIGEST) -> tuple[str, ...]:
    questions = [Question(digest=AdapterDigest(digest), text=text) for text in texts]
    return engine.write(questions, max_tokens=max_tokens, deadline_s=deadline_s)


def test_texts_come_in_the_order_asked_and_the_same_question_is_answered_the_same(engine: GenerationEngine) -> None:
    first, second = ask(engine, "summarise this", "and that")
    assert ask(engine, "and that", "summarise this") == (second, first)
    assert ask(engine) == ()


def test_a_text_has_no_more_tokens_than_allowed(engine: GenerationEngine) -> None:
    (text,) = ask(engine, "one two three four five", max_tokens=2)
    assert len(text.split()) <= 2


def test_a_version_that_is_not_loaded_is_refused(engine: GenerationEngine) -> None:
    with pytest.raises(NotFound):
        ask(engine, "text", digest="sha256:other")
    engine.unload(DIGEST)
    assert engine.loaded() == frozenset()
    with pytest.raises(NotFound):
        ask(engine, "text")


def test_what_is_not_ready_in_time_is_refused_whole(engine: GenerationEngine) -> None:
    with pytest.raises(DeadlinePassed):
        ask(engine, "a text of several words", deadline_s=1e-9)
