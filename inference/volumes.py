"""From an MR series to the slices that a network sees, and back to its pixels: the one copy, for training and service.

In this order (Schiratti et al. 2021): slices in the order of their places, turned so that every knee looks like one of
the canonical side; some of them chosen; N4; clipped at two percentiles and stretched to 0..1; resampled to a square.
No torch here; `inference.slice_features` brings the result to the network.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference.bias import BiasSpec, correct_bias
from inference.bundle_files import flag, number, whole
from inference.decoding import StoredPixels, decode, decode_frames, undecodable
from inference.errors import BundleError, RefusalError
from inference.findings import Box, RefusalCode, Side, SourceImage
from inference.headers import texts
from inference.limits import DEFAULT_LIMITS, Limits
from inference.mr_geometry import VolumeGeometry, canonical_turn
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries
from inference.mr_stacks import MRSlice
from inference.pixels import modality, padding_mask
from inference.volume_map import SliceMap

Volume = npt.NDArray[np.float32]
MIDDLE, WHOLE = "middle", "whole"
MOST_VOXELS = 2**27  # of chosen slices: half a gigabyte as float32
_NO_CONTRAST = 1e-6  # between the two percentiles, of the higher one
_ALGORITHM = 1  # of `prepare_volume`; raised when the same spec gives other values


@dataclass(frozen=True)
class VolumeSpec:
    """All that decides the slices; travels in bundle.json.

    sequence: the series that is read.
    choice: "middle" takes `slices` consecutive ones around the middle; "whole" takes `slices` evenly over the volume,
        the nearest one each (a short volume gives some twice).
    canonical_side: knees of the other side are mirrored.
    n4: whether the bias field is divided out, with the parameters of `bias`.
    low, high: percentiles of the chosen slices that become 0 and 1.
    size: rows and columns of the result. extent_mm: its side in the patient; None takes the longer side of the image,
        so that all of it is seen; outside of the image is 0.
    """

    sequence: MRSequence = MRSequence.COR_IW_TSE
    choice: str = MIDDLE
    slices: int = 8
    canonical_side: Side = Side.LEFT
    n4: bool = True
    bias: BiasSpec = field(default_factory=BiasSpec)
    low: float = 10.0
    high: float = 80.0
    size: int = 224
    extent_mm: float | None = None

    def __post_init__(self) -> None:
        if self.choice not in (MIDDLE, WHOLE) or self.slices < 1 or self.size < 1:
            raise ValueError(f"choice {self.choice!r}, {self.slices} slices, size {self.size}: not possible")
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles {self.low} and {self.high}: not possible")

    @classmethod
    def default(cls, sequence: MRSequence) -> "VolumeSpec":
        """Eight middle slices of the turbo spin echoes, 64 over the whole volume of the DESS."""
        if sequence is MRSequence.SAG_3D_DESS:
            return cls(sequence, WHOLE, 64)
        return cls(sequence)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the result but the pixels."""
        text = json.dumps([_ALGORITHM, self.to_json()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values for bundle.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "VolumeSpec":
        """Rebuild from bundle.json.

        Raises:
            BundleError: a key is unknown or missing, or a value not possible.
        """
        known, bias = {one.name for one in fields(cls)}, {one.name for one in fields(BiasSpec)}
        try:
            if set(values) != known or set(values["bias"]) != bias:
                raise BundleError(
                    f"the volume preprocessing has the keys {sorted(values)}, this version of Genu needs "
                    f"{sorted(known)}: export the bundle again with this version."
                )
            _check_possible(values)
            correction = BiasSpec(**{**values["bias"], "iterations": tuple(values["bias"]["iterations"])})
            named = {"sequence": MRSequence(values["sequence"]), "canonical_side": Side(values["canonical_side"])}
            return cls(**{**values, **named, "bias": correction})
        except (ValueError, TypeError) as error:
            raise BundleError(f"the volume preprocessing cannot be used: {error}.") from None


def _check_possible(values: Mapping[str, Any]) -> None:
    """Raises ValueError or TypeError for a value of another type or beyond all use."""
    bias = values["bias"]
    for where, key, most in (
        (values, "slices", 4096), (values, "size", 4096), (bias, "shrink", 64), (bias, "fewest", 4096),
        (bias, "fewest_slices", 4096),
    ):  # fmt: skip
        whole(where, key, 1, most)
    if values["slices"] * values["size"] ** 2 > MOST_VOXELS:
        raise ValueError(f"{values['slices']} slices of {values['size']} pixels are more than {MOST_VOXELS} voxels")
    levels = list(bias["iterations"])
    for rounds in levels:
        whole({"iterations": rounds}, "iterations", 0, 1000)
    if not 1 <= len(levels) <= 8:
        raise ValueError(f"iterations {levels!r} are not one to eight levels")
    flag(values, "n4")
    number(bias, "threshold", 0, 1)
    number(values, "low", 0, 100)
    number(values, "high", 0, 100)
    if values["extent_mm"] is not None:
        number(values, "extent_mm", 10, 1000)


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """`slices` float32 (S, size, size), 0..1, canonical side; `map` leads each pixel back to its source.

    `digest`: SHA-256 of the pixels that were read, their geometry and the spec; equal digests have equal slices.
    """

    slices: Volume
    map: SliceMap
    side: Side
    sequence: MRSequence
    digest: str


def prepare_volume(series: MRSeries, spec: VolumeSpec, limits: Limits = DEFAULT_LIMITS) -> PreparedVolume:
    """Decode and prepare one series; only the slices that are chosen are decoded, one at a time.

    Raises RefusalError (UNDECODABLE_PIXELS, NO_PIXEL_DATA, UNSUPPORTED_TRANSFER_SYNTAX naming the image, WRONG_PLANE,
    WRONG_SEQUENCE for a series of another sequence than the spec's), UnreadableError and ResourceError.
    """
    raw = read_volume(series, spec, limits)
    return PreparedVolume(finish(raw, spec), raw.map, series.side, series.sequence, raw.digest)


@dataclass(frozen=True, eq=False)
class RawVolume:
    """Chosen slices (S, R, C), float32, real values, turned; `padding` True where nothing was measured, or None."""

    values: Volume
    padding: npt.NDArray[np.bool_] | None
    map: SliceMap
    digest: str


def read_volume(series: MRSeries, spec: VolumeSpec, limits: Limits = DEFAULT_LIMITS) -> RawVolume:
    """The chosen slices as they were measured; raises as `prepare_volume`."""
    if series.sequence is not spec.sequence:
        reason = f"The series is a {series.sequence.wording} one, the {spec.sequence.wording} one is wanted."
        raise RefusalError(RefusalCode.WRONG_SEQUENCE, reason)
    geometry = series.geometry
    turn = canonical_turn(geometry, series.side, spec.canonical_side)
    indices = chosen_slices(geometry.slices, spec, reverse=turn.reverse_slices)
    rows, columns = (geometry.columns, geometry.rows) if turn.transpose else (geometry.rows, geometry.columns)
    if len(indices) * rows * columns > MOST_VOXELS:
        raise undecodable(f"{len(indices)} slices of {rows} x {columns} pixels are more than {MOST_VOXELS} voxels.")
    values = np.empty((len(indices), rows, columns), np.float32)
    padded = np.zeros(values.shape, np.bool_)
    seen = hashlib.sha256(f"{spec.digest} {series.side} {_described(geometry)}".encode())
    for stored, at in _decoded(series.slices, indices, limits):
        real, padding = _real_values(stored, series.slices[indices[at[0]]])
        seen.update(np.ascontiguousarray(real).data)
        for place in at:
            values[place] = turn.apply(real)
            if padding is not None:
                padded[place] = turn.apply(padding)
    map_ = SliceMap(
        sources=tuple(_source(series.slices[index]) for index in indices),
        indices=indices,
        geometry=geometry,
        turn=turn,
        box=_box(geometry, spec.extent_mm),
        size=spec.size,
    )
    return RawVolume(values, padded if padded.any() and not padded.all() else None, map_, seen.hexdigest())


def chosen_slices(count: int, spec: VolumeSpec, *, reverse: bool = False) -> tuple[int, ...]:
    """Indices into slices in the order of their places, in the order of the turned volume."""
    if spec.choice == MIDDLE:
        taken = min(spec.slices, count)
        first = (count - taken) // 2
        turned = list(range(first, first + taken))
        turned += turned[-1:] * (spec.slices - taken)
    else:
        turned = [int(place) for place in np.floor((np.arange(spec.slices) + 0.5) * count / spec.slices)]
    return tuple(count - 1 - index if reverse else index for index in turned)


def finish(raw: RawVolume, spec: VolumeSpec) -> Volume:
    """N4, percentiles and resampling: float32 (S, size, size), 0..1.

    Raises RefusalError UNDECODABLE_PIXELS for slices without contrast: a black volume has no answer.
    """
    values = raw.values
    inside = None if raw.padding is None else ~raw.padding
    if inside is not None:
        values = np.where(inside, values, values[inside].min())
    if spec.n4:
        values = correct_bias(values, spec.bias)
    low, high = np.percentile(values if inside is None else values[inside], (spec.low, spec.high))
    spread = float(high - low)
    if not spread > _NO_CONTRAST * max(abs(float(high)), _NO_CONTRAST):
        what = f"their percentiles {spec.low:g} and {spec.high:g} are the same"
        raise undecodable(f"The slices have no contrast: {what}.")
    scale = np.float32(1.0 / spread)
    box = raw.map.turned_box
    return np.stack([_resampled(np.clip((one - np.float32(low)) * scale, 0, 1), box, spec.size) for one in values])


def _resampled(image: Volume, box: Box, size: int) -> Volume:
    """`box` of an image, 0 outside of it, to (size, size): bicubic, with a wider kernel where it shrinks."""
    rows, columns = image.shape
    pads = [max(0, int(np.ceil(over))) for over in (-box.top, box.bottom - rows, -box.left, box.right - columns)]
    if any(pads):
        image = np.pad(image, ((pads[0], pads[1]), (pads[2], pads[3])))
    left, top = box.left + pads[2], box.top + pads[0]
    region = (left, top, min(left + box.width, image.shape[1]), min(top + box.height, image.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    resized = picture.resize((size, size), Image.Resampling.BICUBIC, box=region)
    return np.clip(np.asarray(resized, np.float32), 0, 1)


def _box(geometry: VolumeGeometry, extent_mm: float | None) -> Box:
    """The square of the patient that is seen, around the middle of the source image, in its pixels."""
    height, width = geometry.rows * geometry.row_mm, geometry.columns * geometry.column_mm
    extent = max(height, width) if extent_mm is None else extent_mm
    high, wide = extent / geometry.row_mm, extent / geometry.column_mm
    left, top = (geometry.columns - wide) / 2, (geometry.rows - high) / 2
    return Box(left, top, left + wide, top + high)


def _decoded(
    slices: Sequence[MRSlice], indices: Sequence[int], limits: Limits
) -> Iterator[tuple[StoredPixels, tuple[int, ...]]]:
    """Stored pixels of every slice chosen, once each, and where in `indices` it stands; frames of one file together."""
    wanted: dict[int, tuple[int, ...]] = {}
    for at, index in enumerate(indices):
        wanted[index] = (*wanted.get(index, ()), at)
    by_file: dict[str, list[int]] = {}
    for index in wanted:
        by_file.setdefault(slices[index].instance.sop_instance_uid, []).append(index)
    for uid, members in by_file.items():
        instance = slices[members[0]].instance
        frames = [slices[index].frame for index in members]
        try:
            if frames == [None]:
                yield decode(instance, limits), wanted[members[0]]
                continue
            numbers = [frame for frame in frames if frame is not None]
            for stored, index in zip(decode_frames(instance, numbers, limits), members, strict=True):
                yield stored, wanted[index]
        except RefusalError as error:
            raise type(error)(error.refusal.code, error.refusal.reason, source=uid) from None


def _real_values(stored: StoredPixels, one: MRSlice) -> tuple[Volume, npt.NDArray[np.bool_] | None]:
    """Values after rescale slope and intercept, and where padding is; dark is little signal, as in MONOCHROME2."""
    if stored.values.ndim != 2:
        raise undecodable("The slice is a colour image, not a grey one.")
    header = stored.header if one.frame is None else one.header
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if not all(map(_is_number, texts(header, keyword))):  # left out, this slice would be brighter than the others
            raise undecodable(f"{keyword} is no number that can be used.")
    real = modality(stored.values, header)
    if stored.format.photometric == "MONOCHROME1":
        real = real.max() - real
    if not np.isfinite(real).all():
        raise undecodable("Rescale Slope or Intercept leads to values that are no numbers.")
    return real, padding_mask(stored)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float(np.finfo(np.float32).max)
    except ValueError:
        return False


def _source(one: MRSlice) -> SourceImage:
    instance = one.instance
    return SourceImage(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        rows=int(one.header.Rows),
        columns=int(one.header.Columns),
        frame=one.frame,
    )


def _described(geometry: VolumeGeometry) -> str:
    return json.dumps(np.round(geometry.affine, 6).ravel().tolist())


def source_volume(series: MRSeries, limits: Limits = DEFAULT_LIMITS) -> Volume:
    """Every slice of a series in the order of its places (S, R, C), real values, neither turned nor corrected.

    What is on `series.geometry`, for NIfTI and for looking at. Raises as `prepare_volume`.
    """
    geometry = series.geometry
    if geometry.slices * geometry.rows * geometry.columns > MOST_VOXELS:
        size = f"{geometry.slices} slices of {geometry.rows} x {geometry.columns} pixels"
        raise undecodable(f"{size} are more than {MOST_VOXELS} voxels.")
    values = np.empty((geometry.slices, geometry.rows, geometry.columns), np.float32)
    for stored, at in _decoded(series.slices, range(geometry.slices), limits):
        real, _ = _real_values(stored, series.slices[at[0]])
        values[at[0]] = real
    return values
