"""Answers that are given again without asking a replica: by adapter digest and text, the least recently used go first.

An adapter never changes under its digest and its answers are deterministic, so a cached answer is the answer; a promotion names
another digest and so misses. Off by default: repeated texts are rare in most traffic, and answers are request data in memory.
"""

from __future__ import annotations

from collections import OrderedDict

from holdfast.serving.waiting import Answer, Question

OVERHEAD_BYTES = 400
"""Of the Python objects of one entry, beside its text, label and embedding."""


class ResultCache:
    """Bounded in bytes; 0 keeps nothing. Not safe to use from several threads."""

    def __init__(self, byte_count: int) -> None:
        self._limit = byte_count
        self._kept: OrderedDict[Question, Answer] = OrderedDict()
        self.byte_count = 0
        """Estimated bytes of what is kept; never above the limit."""
        self.hit_count = 0
        self.miss_count = 0

    def get(self, question: Question) -> Answer | None:
        """The answer given before."""
        if not self._limit:
            return None
        answer = self._kept.get(question)
        if answer is None:
            self.miss_count += 1
            return None
        self.hit_count += 1
        self._kept.move_to_end(question)
        return answer

    def put(self, question: Question, answer: Answer) -> None:
        """Keep it, if it fits at all."""
        size = _size(question, answer)
        if size > self._limit or question in self._kept:
            return
        self._kept[question] = answer
        self.byte_count += size
        while self.byte_count > self._limit:
            self.byte_count -= _size(*self._kept.popitem(last=False))


def _size(question: Question, answer: Answer) -> int:
    return OVERHEAD_BYTES + 4 * len(question[1]) + 4 * len(answer[0]) + len(answer[2])
