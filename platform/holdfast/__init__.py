"""Holdfast keeps fine-tuned small models true in production."""

__version__ = "0.1.0"
