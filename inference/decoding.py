"""Stored pixel values of one image, from any transfer syntax that a decoder here reads; the rest is refused by name.

Sizes are checked against the header, the limits and the codestream before a codec runs. Decoders are named per
syntax, since pydicom's own order may pick a slower one; GDCM runs in a process of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from inference.codestreams import read_frame_header
from inference.errors import RefusalError, ResourceError, UnreadableError
from inference.findings import RefusalCode
from inference.headers import controlled, first, number
from inference.instances import VALUE_ERRORS, Instance, OpenInstance, open_instance
from inference.isolated import PLUGIN, register
from inference.limits import DEFAULT_LIMITS, Limits
from inference.structure import fragments_end

Stored = npt.NDArray[np.integer]

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})
_RLE = "1.2.840.10008.1.2.5"
# The first that is installed decodes; measured in docs/selection.md.
_PLUGINS: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2.4.50": ("pillow", PLUGIN),
    "1.2.840.10008.1.2.4.51": (PLUGIN,),
    "1.2.840.10008.1.2.4.57": (PLUGIN,),
    "1.2.840.10008.1.2.4.70": (PLUGIN,),
    "1.2.840.10008.1.2.4.80": ("pyjpegls",),
    "1.2.840.10008.1.2.4.81": ("pyjpegls",),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", PLUGIN),
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", PLUGIN),
    "1.2.840.10008.1.2.4.201": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.202": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.203": ("pylibjpeg",),
    _RLE: ("pylibjpeg", "pydicom"),
}
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_SLACK = 1 << 20
_CODEC_ERRORS: tuple[type[Exception], ...] = (*VALUE_ERRORS, RuntimeError, OSError)


@dataclass(frozen=True)
class PixelFormat:
    """The Image Pixel module (PS3.3 C.7.6.3), checked; `bits_stored` and `high_bit` are made consistent."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.samples * (self.bits_allocated // 8)


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """Stored values, (rows, columns) for grey or (rows, columns, 3) for RGB, with the header that explains them."""

    values: Stored
    format: PixelFormat
    header: Dataset = field(repr=False)


def undecodable(reason: str) -> RefusalError:
    """An error with the code UNDECODABLE_PIXELS."""
    return RefusalError(RefusalCode.UNDECODABLE_PIXELS, reason)


def supported_syntaxes() -> tuple[str, ...]:
    """Transfer Syntax UIDs whose pixels can be decoded with what is installed."""
    return tuple(sorted(_NATIVE | {syntax for syntax in _PLUGINS if _plugin(syntax)}))


def decode(instance: Instance, limits: Limits = DEFAULT_LIMITS) -> StoredPixels:
    """The stored values of a single-frame image.

    Raises RefusalError (NO_PIXEL_DATA, UNDECODABLE_PIXELS, UNSUPPORTED_TRANSFER_SYNTAX), UnreadableError when the file
    has changed into something unreadable, ResourceError when memory is short.
    """
    _refuse_unsupported(instance.transfer_syntax_uid)
    expected = pixel_format(instance.header, limits)
    with open_instance(instance.path, limits, expected.frame_bytes + _SLACK, instance.place) as opened:
        if opened.instance.sop_instance_uid != instance.sop_instance_uid:
            raise undecodable("The file has changed since its header was read.")
        found = pixel_format(opened.instance.header, limits)
        raw = _raw_bytes(opened, found, limits)
        syntax = opened.instance.transfer_syntax_uid
        try:
            values = _native(raw, found, opened) if syntax in _NATIVE else _compressed(raw, found, opened.instance)
        except MemoryError:
            raise ResourceError(f"Not enough memory for {found.rows} x {found.columns} pixels just now.") from None
    return StoredPixels(values, found, opened.instance.header)


def decode_frames(instance: Instance, wanted: Sequence[int], limits: Limits = DEFAULT_LIMITS) -> Iterator[StoredPixels]:
    """Stored values (rows, columns) of frames of a grey multi-frame image, numbered from 1, one in memory at a time.

    Compressed fragments are all read at once, uncompressed frames singly. Raises as `decode`; a frame that the image
    has not is UNDECODABLE_PIXELS.
    """
    _refuse_unsupported(instance.transfer_syntax_uid)
    expected, frames = _multiframe(instance.header, limits)
    if outside := [frame for frame in wanted if not 1 <= frame <= frames]:
        raise undecodable(f"Frame {outside[0]} is wanted of an image with {frames} frames.")
    with open_instance(instance.path, limits, frames * expected.frame_bytes + _SLACK, instance.place) as opened:
        found, frames = _multiframe(opened.instance.header, limits)
        if opened.instance.sop_instance_uid != instance.sop_instance_uid or found != expected:
            raise undecodable("The file has changed since its header was read.")
        for raw in _frames_bytes(opened, found, frames, wanted, limits):
            try:
                native = instance.transfer_syntax_uid in _NATIVE
                values = _native(raw, found, opened) if native else _compressed(raw, found, opened.instance)
            except MemoryError:
                reason = f"Not enough memory for {found.rows} x {found.columns} pixels just now."
                raise ResourceError(reason) from None
            yield StoredPixels(values, found, opened.instance.header)


def _multiframe(header: Dataset, limits: Limits) -> tuple[PixelFormat, int]:
    found, frames = pixel_format(header, limits, multiframe=True), number(header, "NumberOfFrames") or 1
    if found.samples != 1:
        raise undecodable(f"A multi-frame image with {found.samples} samples a pixel: only grey ones are read.")
    return found, frames


def _frames_bytes(
    opened: OpenInstance, found: PixelFormat, frames: int, wanted: Sequence[int], limits: Limits
) -> Iterator[bytes]:
    raw = _raw_bytes(opened, found, limits, frames)
    if opened.instance.transfer_syntax_uid in _NATIVE:
        start = opened.pixels.offset if opened.pixels is not None else 0
        for frame in wanted:
            yield opened.source.read_at(start + (frame - 1) * found.frame_bytes, found.frame_bytes)
        return
    name = UID(opened.instance.transfer_syntax_uid).name
    with _codec_errors(name):
        fragments = list(generate_frames(raw, number_of_frames=frames))
    if len(fragments) != frames:
        raise undecodable(f"{name}: {len(fragments)} frames are there, but NumberOfFrames is {frames}.")
    for frame in wanted:
        yield encapsulate([fragments[frame - 1]], has_bot=False)


def read_dataset(instance: Instance, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """The header with Pixel Data in it, as pydicom holds it (encapsulated where compressed); raises as `decode`."""
    expected = pixel_format(instance.header, limits)
    with open_instance(instance.path, limits, expected.frame_bytes + _SLACK, instance.place) as opened:
        raw = _raw_bytes(opened, pixel_format(opened.instance.header, limits), limits)
        dataset = opened.instance.header
        native = opened.pixels is not None and opened.pixels.length is not None
        dataset.add(DataElement(0x7FE00010, "OW" if native else "OB", raw, is_undefined_length=not native))
        return dataset


def pixel_format(header: Dataset, limits: Limits, *, multiframe: bool = False) -> PixelFormat:
    """The Image Pixel module, or RefusalError UNDECODABLE_PIXELS naming the attribute that makes no sense.

    More than one frame is refused, except with `multiframe`.
    """
    rows, columns = number(header, "Rows"), number(header, "Columns")
    samples, allocated = number(header, "SamplesPerPixel") or 1, number(header, "BitsAllocated")
    frames = number(header, "NumberOfFrames") or 1
    photometric = first(header, "PhotometricInterpretation")
    if not (0 < rows <= 65535 and 0 < columns <= 65535):
        raise undecodable(f"Rows ({rows}) and Columns ({columns}) do not describe an image.")
    if rows * columns * samples * frames > limits.max_pixels:
        raise undecodable(
            f"{rows} x {columns} pixels, {frames} frames, {samples} samples are more than {limits.max_pixels}."
        )
    if frames > 1 and not multiframe:
        raise undecodable(f"NumberOfFrames is {frames}: only single-frame images are read.")
    if allocated not in (8, 16, 32):
        raise undecodable(f"BitsAllocated is {allocated}; 8, 16 or 32 can be read.")
    if not ((samples == 1 and photometric in _GREY) or (samples == 3 and photometric in _COLOUR)):
        raise undecodable(
            f"PhotometricInterpretation {controlled(photometric) or 'is empty'} with {samples} samples cannot be read."
        )
    stored = number(header, "BitsStored")
    stored = stored if 0 < stored <= allocated else allocated
    high = number(header, "HighBit")
    high = high if stored - 1 <= high < allocated else stored - 1
    signed, planar = number(header, "PixelRepresentation") == 1, number(header, "PlanarConfiguration") == 1
    return PixelFormat(rows, columns, samples, allocated, stored, high, signed, photometric, planar)


def _refuse_unsupported(syntax: str) -> None:
    if syntax in _NATIVE or (syntax in _PLUGINS and _plugin(syntax)):
        return
    name = UID(syntax).name
    said = f"{name} ({syntax})" if name != syntax and name.isascii() else syntax
    raise RefusalError(
        RefusalCode.UNSUPPORTED_TRANSFER_SYNTAX,
        f"No decoder here reads the transfer syntax {said}. Send the image uncompressed or as JPEG Lossless.",
    )


def _plugin(syntax: str) -> str | None:
    register()
    available = get_decoder(syntax).available_plugins
    return next((name for name in _PLUGINS[syntax] if name in available), None)


def _raw_bytes(opened: OpenInstance, found: PixelFormat, limits: Limits, frames: int | None = None) -> bytes:
    """The pixel data of a single frame, or of `frames`: then uncompressed ones are only checked, and empty."""
    pixels = opened.pixels
    if pixels is None or pixels.length == 0:
        raise RefusalError(RefusalCode.NO_PIXEL_DATA, "The object has no Pixel Data. Send the image itself.")
    if pixels.tag != 0x7FE00010:
        raise undecodable("The pixels are floating point numbers, not those of a radiograph.")
    native = opened.instance.transfer_syntax_uid in _NATIVE
    if pixels.length is not None:
        if not native:
            raise undecodable("The transfer syntax is a compressed one, but Pixel Data is not encapsulated.")
        expected = _native_size(found)
        if frames is not None:
            if pixels.length < frames * expected or not opened.source.read_at(pixels.offset + frames * expected - 1, 1):
                raise undecodable(f"Pixel Data is shorter than {frames} frames of {expected} bytes: truncated.")
            return b""
        raw = opened.source.read_at(pixels.offset, min(pixels.length, expected))
        if len(raw) < expected:
            raise undecodable(f"Pixel Data has {len(raw)} bytes, but the header describes {expected}: truncated.")
        return raw
    if native:
        raise undecodable("Pixel Data is encapsulated, but the transfer syntax is an uncompressed one.")
    try:
        end = fragments_end(opened.source, pixels.offset, pixels.tag, limits.max_elements)
    except UnreadableError:
        raise undecodable("The fragments of Pixel Data are damaged or truncated. Send the image again.") from None
    if end - pixels.offset > 2 * (frames or 1) * found.frame_bytes + _SLACK:
        raise undecodable("The compressed Pixel Data is far larger than the image that the header describes.")
    return opened.source.read_at(pixels.offset, end - pixels.offset)


def _native_size(found: PixelFormat) -> int:
    if found.photometric == "YBR_FULL_422":
        return found.rows * found.columns * 2
    return found.frame_bytes


def _native(raw: bytes, found: PixelFormat, opened: OpenInstance) -> Stored:
    order = ">" if not opened.encoding.little else "<"
    kind = f"{order}{'i' if found.signed else 'u'}{found.bits_allocated // 8}"
    if found.samples == 3:
        return _colour(raw, found, opened)
    data = raw
    if found.bits_allocated == 8 and order == ">" and opened.pixels is not None and opened.pixels.vr == "OW":
        words = np.frombuffer(raw[: len(raw) // 2 * 2], ">u2")
        data = words.astype("<u2").tobytes() + raw[len(words) * 2 :]  # 8-bit cells in swapped words (PS3.5 8.1.1)
    values = np.frombuffer(data, kind).reshape(found.rows, found.columns)
    return _without_high_bits(values.astype(values.dtype.newbyteorder("=")), found)


def _without_high_bits(values: Stored, found: PixelFormat) -> Stored:
    """Only Bits Stored count; older equipment kept overlays in the other bits. Sign comes from the High Bit."""
    above = found.bits_allocated - 1 - found.high_bit
    below = found.bits_allocated - found.bits_stored
    if below == 0:
        return values
    return np.right_shift(np.left_shift(values, above), below)


def _colour(raw: bytes, found: PixelFormat, opened: OpenInstance) -> Stored:
    with _codec_errors("uncompressed colour"):
        dataset = _for_pydicom(raw, found, opened.instance.transfer_syntax_uid)
        values, _ = get_decoder(opened.instance.transfer_syntax_uid).as_array(dataset, index=0)
        return cast(Stored, values)


def _compressed(raw: bytes, found: PixelFormat, instance: Instance) -> Stored:
    syntax = instance.transfer_syntax_uid
    name = UID(syntax).name
    with _codec_errors(name):
        frame = b"".join(generate_frames(raw, number_of_frames=1))
        if syntax != _RLE:
            _check_frame(frame, found, name)
        dataset = _for_pydicom(raw, found, syntax)
        values, _ = get_decoder(syntax).as_array(dataset, index=0, decoding_plugin=_plugin(syntax) or "")
        shape = (found.rows, found.columns) if found.samples == 1 else (found.rows, found.columns, 3)
        if values.shape != shape:
            raise undecodable(f"{name}: the decoder returned {values.shape} instead of {shape}.")
        return cast(Stored, values)


def _check_frame(frame: bytes, found: PixelFormat, name: str) -> None:
    declared = read_frame_header(frame)
    if declared is None:
        raise undecodable(f"The {name} codestream has no valid frame header: damaged. Send the image again.")
    if (declared.rows, declared.columns, declared.components) != (found.rows, found.columns, found.samples):
        raise undecodable(
            f"The {name} codestream holds {declared.rows} x {declared.columns} x {declared.components}, "
            f"but the header describes {found.rows} x {found.columns} x {found.samples}."
        )
    if declared.precision > found.bits_allocated:
        raise undecodable(f"The {name} codestream has {declared.precision} bits, BitsAllocated {found.bits_allocated}.")


def _for_pydicom(raw: bytes, found: PixelFormat, syntax: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = found.rows, found.columns, found.samples
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = found.bits_allocated, found.bits_stored, found.high_bit
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = int(found.signed), found.photometric
    if found.samples > 1:
        dataset.PlanarConfiguration = int(found.planar)
    dataset.add(DataElement(0x7FE00010, "OB" if syntax not in _NATIVE or found.bits_allocated == 8 else "OW", raw))
    return dataset


class _codec_errors(AbstractContextManager[None]):  # noqa: N801 - reads as a function
    """Whatever a decoder raises over damaged pixels is a refusal.

    pylibjpeg-rle is written in Rust: over some damage it panics, with an exception that is no Exception and has no name
    to import. It is known by its module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and (issubclass(kind, _CODEC_ERRORS) or kind.__module__ == "pyo3_runtime"):
            reason = f"The {self._name} pixels cannot be decoded: damaged or truncated. Send the image again."
            raise undecodable(reason) from None
