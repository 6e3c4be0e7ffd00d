"""The one door to torch, transformers and PEFT: training of both rungs, and the engine that answers with them.

Training and engine live in one room because they run the same forward pass (``encoder``) over the same frozen base
(``base_model``); backends may not import one another. Importing this package imports no framework: names are loaded on
first use, so that a light process may hold a reference to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.backends.lora.base_model import BaseModel
    from holdfast.backends.lora.engine import LoraEngine, ServingOptions
    from holdfast.backends.lora.local import LocalTrainer
    from holdfast.backends.lora.orders import run_order

__all__ = ["BaseModel", "LocalTrainer", "LoraEngine", "ServingOptions", "run_order"]


def __getattr__(name: str) -> object:
    homes = {"BaseModel": "base_model", "LoraEngine": "engine", "ServingOptions": "engine", "LocalTrainer": "local", "run_order": "orders"}
    if name not in homes:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
