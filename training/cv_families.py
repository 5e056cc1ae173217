"""Kinds of cross-validated runs. A kind is a module that measures predictions and shows what was measured.

To add one: write a module with the functions of `Family`, and name it in FAMILIES. Reading, checking, writing, the
page's frame and the parts that all kinds share need no change.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import polars as pl

from inference.errors import DataError

if TYPE_CHECKING:
    from training.cv_evidence import Evidence
    from training.published import Published
    from training.report_page import Section

FAMILIES: Final = {"regression": "training.cv_regression", "classification": "training.cv_classification"}


Figures = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured. tables: for people, by name of their CSV file. figures: all of it, as JSON holds it."""

    tables: Mapping[str, pl.DataFrame]
    figures: Figures


class Family(Protocol):
    """What a kind of run must offer; a module is one. `figures` is what its own `evaluate` found."""

    def evaluate(self, evidence: Evidence) -> Evaluation:
        """Measure every system; DataError where predictions are not of this kind."""

    def lines(self, figures: Figures) -> list[str]:
        """The chief figures in words, a line a system."""

    def headline(self, evidence: Evidence) -> str:
        """The page's title."""

    def summary(self, evidence: Evidence, figures: Figures) -> list[str]:
        """What was found, in a few sentences for the top of the page."""

    def sections(self, evidence: Evidence, figures: Figures, published: Sequence[Published]) -> Sequence[Section]:
        """The report's sections between what was run and how it was made."""


def family_of(kind: object) -> Family:
    """The family of run.json's kind.

    Raises:
        DataError: there is none of this name.
    """
    if kind not in FAMILIES:
        raise DataError(f"a run of kind {kind!r} cannot be evaluated; there are {', '.join(map(repr, FAMILIES))}.")
    return cast("Family", importlib.import_module(FAMILIES[str(kind)]))
