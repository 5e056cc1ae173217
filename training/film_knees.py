"""The knees of a labelled film, found and cut as the service does it, or why it would refuse them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.errors import RefusalError
from inference.films import FilmReader
from inference.finder import Finder
from inference.findings import Refusal, RefusalCode, Side
from inference.markers import MarkerReader
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec, stored
from inference.reading import StudyInput, read_instance
from inference.studies import select

Knee = npt.NDArray[np.uint8] | str


def cut_film(path: Path, sides: Sequence[Side], spec: PreprocessSpec) -> list[Knee]:
    """One film's knees of these sides: uint8 (S, S) on the canonical side, or code and reason of a refusal.

    Selection, decoding, finder, letters, sides and fitness are those of `inference.predictor.Predictor.score`.

    Raises:
        ResourceError: memory or descriptors are short; BundleError: the shipped finder or marker reader cannot be used.
    """
    try:
        instance = read_instance(path)
        selection = select(StudyInput(instance.study_instance_uid, (instance,), ()))
        if not selection.candidates:
            return [_told(selection.refusals[0])] * len(sides)
        candidate = selection.candidates[0]
        film = reader().examine(load_display(instance), candidate, spec)
    except RefusalError as error:
        return [_told(error.refusal)] * len(sides)
    found = {knee.side: stored(knee.crop) for knee in film.knees}
    return [found[side] if side in found else _missing(side, candidate.stating.side, film.refusals) for side in sides]


def identity() -> list[Any]:
    """What of this version of the service decides which crop comes of a film, as JSON values."""
    return [reader().finder.digest, reader().markers.digest]


@cache
def reader() -> FilmReader:
    """The shipped finder and marker reader, loaded once. Raises BundleError."""
    return FilmReader(Finder.load(), MarkerReader.load())


def _missing(side: Side, stated: str | None, refusals: Sequence[Refusal]) -> str:
    of_side = [refusal for refusal in refusals if refusal.side is side]
    of_film = [refusal for refusal in refusals if refusal.side is None]
    if stated == side.other:
        return f"{RefusalCode.SIDE_CONTRADICTORY}: the label says {side}, the header {stated}."
    if of_side or of_film:
        return _told((of_side or of_film)[0])
    return f"{RefusalCode.SIDE_CONTRADICTORY}: the label says {side}, the film shows the {side.other} knee only."


def _told(refusal: Refusal) -> str:
    return f"{refusal.code}: {refusal.reason}"
