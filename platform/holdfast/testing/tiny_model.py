"""A BERT of two layers with a tokenizer, made from its configuration in a second: stands in for MiniLM in tests.

Its weights are random, which suffices for a task whose classes differ in their words.
"""

from __future__ import annotations

import hashlib
import string
from pathlib import Path

_TEXT = (
    "i my the a is was not please why when how can you get order invoice refund parcel late lost charged twice card login "
    "password reset account address change cancel return broken screen battery app crash slow thanks hello where new"
)
WORDS = tuple(_TEXT.split())


def make_tiny_model(folder: Path, *, seed: int = 0, hidden: int = 32) -> tuple[str, str]:
    """Write a model folder like MiniLM's and return its path and the SHA-256 of its weights, as ``bases`` of the engine takes them."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces += [f"##{one}" for one in string.ascii_lowercase + string.digits]
    vocabulary = list(dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * hidden,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return str(folder), hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
