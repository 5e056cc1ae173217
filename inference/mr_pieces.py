"""Whether two series are pieces of one volume that arrived under two Series Instance UIDs. No pixels, no torch.

Half a knee looks like a whole one to every other question, but its middle slices are not those of the knee.
"""

from collections.abc import Sequence

import numpy as np

from inference.errors import RefusalError
from inference.headers import first, texts
from inference.mr_geometry import VolumeGeometry, arrange, place_of
from inference.mr_stacks import MRSlice

_LIKE = 1.2  # a piece whose step is at most this much of that of the whole has no gaps
REASON = (
    "Two series of this knee are pieces of one volume: together their slices make one row. Send all slices again under "
    "one Series Instance UID."
)


def are_pieces(one: Sequence[MRSlice], other: Sequence[MRSlice]) -> bool:
    """Whether two volumes of one knee lie side by side, or fill each other's gaps, in one frame of reference.

    A rescan that was moved by half a step fills gaps, too, but counts its images from 1 again: of volumes that fill
    each other's gaps no Instance Number may be the same.
    """
    frame = _frame(one)
    if not frame or frame != _frame(other):
        return False
    try:
        (whole, order), (own, _) = _arranged((*one, *other)), _arranged(one)
    except RefusalError:
        return False
    beside = len({index < len(one) for index in order[: len(one)]}) == 1 and _step(own) <= _LIKE * _step(whole)
    return beside or not _numbers(one) & _numbers(other)


def _arranged(slices: Sequence[MRSlice]) -> tuple[VolumeGeometry, tuple[int, ...]]:
    return arrange([place_of(piece.header) for piece in slices])


def _step(geometry: VolumeGeometry) -> float:
    return float(np.linalg.norm(geometry.step))


def _frame(slices: Sequence[MRSlice]) -> str:
    """Frame of Reference UID of all slices; empty where there is none or several."""
    found = {first(piece.header, "FrameOfReferenceUID") for piece in slices}
    return found.pop() if len(found) == 1 else ""


def _numbers(slices: Sequence[MRSlice]) -> set[tuple[str, ...]]:
    return {(*texts(piece.header, "InstanceNumber"), str(piece.frame or "")) for piece in slices}
