"""What every server of the comparison has inside: one adapter on the base by our engine, and a model that answers at once.

Runs in the environments of the peers, which have torch, transformers, SciPy and pydantic-settings, but not Holdfast as a package: the
source tree is on their path.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.domain.ids import AdapterDigest
from holdfast.ports import Question
from holdfast.settings import MINILM

NULL_LABEL, NULL_CONFIDENCE = "0:0", 0.75
Answer = dict[str, str | float]


class ServedModel:
    """One core for the model, as in a replica of Holdfast: one pass at a time, one torch thread."""

    def __init__(self, home: str) -> None:
        """``home`` of Holdfast: `served.json` names base and adapter; `cache/engine` is what was measured and compiled on this machine."""
        folder = Path(home)
        named = json.loads((folder / "served.json").read_text())
        options = ServingOptions(code_folder=folder / "cache" / "engine")
        self._engine = LoraEngine({"minilm": (named["base"], MINILM.sha256)}, 1, serving=options)
        self._digest = AdapterDigest(named["digest"])
        self._engine.load(self._digest, Path(named["folder"]))
        self._one = threading.Lock()

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """One answer per text."""
        with self._one:
            answers = self._engine.answer([Question(digest=self._digest, text=text) for text in texts])
        return [{"label": one.prediction.label, "confidence": one.prediction.confidence} for one in answers]

    @staticmethod
    def nothing(texts: Sequence[str]) -> list[Answer]:
        """The shape of `answer` without its work."""
        return [{"label": NULL_LABEL, "confidence": NULL_CONFIDENCE} for _ in texts]
