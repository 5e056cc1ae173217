"""MR images and frames, each with a flat header of its own, sorted into stacks. No pixels, no torch.

An enhanced object says in functional groups what a single image says in its header (PS3.3 C.7.6.16): what all frames
share and what one frame says are merged here, so that everybody else asks plain attributes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.headers import first, items, number, texts
from inference.instances import Instance

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LEGACY_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.4"
MR_CLASSES = frozenset({MR_IMAGE, ENHANCED_MR, LEGACY_ENHANCED_MR})

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "FrameContentSequence",
    "FrameAnatomySequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MRImageFrameTypeSequence",
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRFOVGeometrySequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
# What single images call otherwise.
_ALSO = {"EffectiveEchoTime": "EchoTime", "RFEchoTrainLength": "EchoTrainLength", "FrameType": "ImageType"}
# What a reader of a flat header never asks for, and what is large.
_LEFT_OUT = frozenset({*_GROUPS, "DimensionIndexSequence", "ReferencedImageSequence", "SourceImageSequence"})


@dataclass(frozen=True, eq=False)
class MRSlice:
    """One image, or one frame of an enhanced one (`frame` counts from 1); `header` is flat."""

    instance: Instance
    frame: int | None
    header: Dataset


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one series that belong together: one echo, one time, one kind of image; in no order.

    `name` tells stacks of one series apart ("stack 1, time 2"); it is empty where there is only one.
    """

    series_instance_uid: str
    name: str
    slices: tuple[MRSlice, ...]


def stacks_of(instances: Iterable[Instance]) -> tuple[Stack, ...]:
    """The stacks among instances, each instance once, in the order of series UID and name; other SOP classes make none.

    Slices of one series with other Stack ID, Temporal Position, echo, Image Type or complex component are other stacks.
    """
    found: dict[tuple[str, ...], dict[tuple[str, int], MRSlice]] = {}
    for instance in instances:
        if instance.sop_class_uid not in MR_CLASSES:
            continue
        for piece in _slices(instance):
            key = (instance.series_instance_uid, *_apart(piece.header))
            found.setdefault(key, {}).setdefault((instance.sop_instance_uid, piece.frame or 0), piece)
    return tuple(_stacks(found))


def _stacks(found: dict[tuple[str, ...], dict[tuple[str, int], MRSlice]]) -> Iterator[Stack]:
    of_series: dict[str, list[tuple[str, ...]]] = {}
    for key in sorted(found):
        of_series.setdefault(key[0], []).append(key)
    for series, keys in of_series.items():
        for number_, key in enumerate(keys, 1):
            pieces = found[key]
            name = f"stack {number_} of {len(keys)}" if len(keys) > 1 else ""
            yield Stack(series, name, tuple(pieces[place] for place in sorted(pieces)))


def _apart(header: Dataset) -> tuple[str, ...]:
    """What slices of one stack have in common, as text."""
    echo = first(header, "EchoNumbers") or first(header, "EchoTime")
    time = first(header, "TemporalPositionIndex") or first(header, "TemporalPositionIdentifier")
    kind = "\\".join(value.upper() for value in texts(header, "ImageType"))
    return first(header, "StackID"), time.zfill(8), echo, kind, first(header, "ComplexImageComponent")


def _slices(instance: Instance) -> Iterator[MRSlice]:
    header = instance.header
    if instance.sop_class_uid == MR_IMAGE and number(header, "NumberOfFrames") <= 1:
        yield MRSlice(instance, None, header)
        return
    shared_groups, frame_groups = (list(items(header, keyword)) for keyword in _GROUPS)
    top = _top(header)
    for group in shared_groups[:1]:
        _merge(top, group)
    if len(frame_groups) != number(header, "NumberOfFrames"):
        return  # which frame a group speaks of is told by its place alone
    for frame, group in enumerate(frame_groups, 1):
        flat = Dataset()
        flat.update(top)
        _merge(flat, group)
        yield MRSlice(instance, frame, flat)


def _top(header: Dataset) -> Dataset:
    top = Dataset()
    for element in header:
        if element.keyword not in _LEFT_OUT:
            top[element.tag] = element
    return top


def _merge(flat: Dataset, group: Dataset) -> None:
    """Set what the macros of a group say; a frame type replaces the Image Type of the whole object ("MIXED")."""
    for macro in _MACROS:
        for item in items(group, macro):
            for element in item:
                flat[element.tag] = element
                if element.keyword in _ALSO:
                    setattr(flat, _ALSO[element.keyword], element.value)
