"""Evidently: drift reports that people can open."""

from holdfast.backends.evidently_reports.reporter import EvidentlyReporter
from holdfast.backends.evidently_reports.workspace import ui_command

__all__ = ["EvidentlyReporter", "ui_command"]
