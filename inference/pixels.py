"""An image as a reader sees it: Modality LUT, VOI LUT or window, presentation; 0..1, bright bone (PS3.3 C.11)."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.decoding import StoredPixels, decode
from inference.errors import RefusalError
from inference.findings import SourceImage
from inference.headers import first, items, texts
from inference.instances import Instance
from inference.limits import DEFAULT_LIMITS, Limits

Grey = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_LOSSY_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"})
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Robust range where the header has no usable window: a few burnt-in or dead pixels must not set the scale.
_LOW_PERCENT, _HIGH_PERCENT = 0.5, 99.5
# Slopes, windows and the like beyond these are mistakes; 16 bits times and over them are still float32 and int64.
_SMALLEST, _LARGEST = 1e-15, 1e12


@dataclass(frozen=True, eq=False)
class DisplayImage:
    """`values` float32 (rows, columns) in 0..1, bright bone; `padding` True where nothing was exposed, or None.

    Padding has the value 0. `lossy` says that the original was compressed with loss at some time.
    """

    values: Grey
    padding: Mask | None
    source: SourceImage
    lossy: bool


def load_display(instance: Instance, limits: Limits = DEFAULT_LIMITS) -> DisplayImage:
    """Decode one image and bring it to how a reader sees it.

    Raises RefusalError (NO_PIXEL_DATA, UNDECODABLE_PIXELS, UNSUPPORTED_TRANSFER_SYNTAX) naming the instance as its
    source, and ResourceError.
    """
    try:
        stored = decode(instance, limits)
    except RefusalError as error:
        raise RefusalError(error.refusal.code, error.refusal.reason, source=instance.sop_instance_uid) from None
    header = stored.header
    padding = padding_mask(stored)
    values = display_values(stored, padding)
    if padding is not None:
        values[padding] = 0.0
    source = SourceImage(
        instance.sop_class_uid,
        instance.sop_instance_uid,
        instance.series_instance_uid,
        stored.format.rows,
        stored.format.columns,
    )
    lossy = first(header, "LossyImageCompression") == "01" or instance.transfer_syntax_uid in _LOSSY_SYNTAXES
    return DisplayImage(values, padding, source, lossy)


def display_values(stored: StoredPixels, padding: Mask | None) -> Grey:
    """Stored values through the grey-scale pipeline of PS3.3 C.11; colour becomes its luma."""
    if stored.values.ndim == 3:
        top = float(2**stored.format.bits_stored - 1)
        luma: Grey = (stored.values.astype(np.float32) @ _LUMA) / np.float32(top)
        return np.clip(luma, 0.0, 1.0)
    header = stored.header
    inside = stored.values if padding is None else stored.values[~padding]
    real = modality(stored.values, header)
    low, high = _range(modality(inside, header))
    shown = voi(real, header, low, high)
    if _is_inverse(header):
        np.subtract(1.0, shown, out=shown)
    return shown


def padding_mask(stored: StoredPixels) -> Mask | None:
    """Where Pixel Padding Value or the range to its Limit is (PS3.3 C.7.5.1.1.2); None when nowhere or everywhere."""
    value = _padding_number(stored, "PixelPaddingValue")
    if value is None or stored.values.ndim == 3:
        return None
    limit = _padding_number(stored, "PixelPaddingRangeLimit")
    other = value if limit is None else limit
    mask: Mask = (stored.values >= min(value, other)) & (stored.values <= max(value, other))
    return mask if mask.any() and not mask.all() else None


def modality(values: npt.NDArray[np.integer], header: Dataset) -> Grey:
    """Modality LUT, else rescale slope and intercept, else the values themselves (PS3.3 C.11.1)."""
    for item in items(header, "ModalityLUTSequence"):
        table = _lut(item, header)
        if table is not None:
            return table[0][_indices(values, table)]
    slope, intercept = _real(header, "RescaleSlope"), _real(header, "RescaleIntercept")
    found = values.astype(np.float32)
    if slope not in (None, 0.0, 1.0):
        found *= np.float32(slope)
    if intercept:
        found += np.float32(intercept)
    return found


def voi(values: Grey, header: Dataset, low: float, high: float) -> Grey:
    """VOI LUT, else the first usable window, else the range low..high, to 0..1 (PS3.3 C.11.2).

    A LUT or window that makes one grey of an image that has more is not believed.
    """
    for shown in (_voi_lut(values, header), _windowed(values, header)):
        if shown is not None and (high <= low or np.ptp(shown) > 0):
            return shown
    if high <= low:
        return np.full(values.shape, 0.5, dtype=np.float32)
    shown = (values - np.float32(low)) / np.float32(high - low)
    return np.clip(shown, 0.0, 1.0, out=shown)


def _voi_lut(values: Grey, header: Dataset) -> Grey | None:
    for item in items(header, "VOILUTSequence"):
        table = _lut(item, header)
        if table is not None:
            entries, _, bits = table
            top = max(float(2**bits - 1), float(entries.max()))
            shown: Grey = entries[_indices(values, table)] / np.float32(top)
            return shown
    return None


def _windowed(values: Grey, header: Dataset) -> Grey | None:
    centre, width = _real(header, "WindowCenter"), _real(header, "WindowWidth")
    if centre is None or width is None or width < _SMALLEST:
        return None
    function = first(header, "VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - np.float32(centre)) / np.float32(width), -60.0, 60.0)
        sigmoid: Grey = (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)
        return sigmoid
    if function == "LINEAR_EXACT":
        shown = (values - np.float32(centre)) / np.float32(width) + np.float32(0.5)
    elif width >= 1:
        shown = (values - np.float32(centre - 0.5)) / np.float32(max(width - 1.0, 1e-3)) + np.float32(0.5)
    else:
        return None
    return np.clip(shown, 0.0, 1.0, out=shown)


_Lut = tuple[Grey, int, int]


def _lut(item: Dataset, header: Dataset) -> _Lut | None:
    """Entries, first mapped value and bits of one LUT item (PS3.3 C.11.1.1, C.11.2.1.1); None when it is damaged."""
    descriptor = [_integer(text) for text in texts(item, "LUTDescriptor")]
    if len(descriptor) != 3 or None in descriptor:
        return None
    count, start, bits = (value or 0 for value in descriptor)
    count = count or 65536
    data = item.get("LUTData")
    little = header.original_encoding[1] is not False
    if isinstance(data, bytes):
        kind = "u1" if len(data) < 2 * count else ("<u2" if little else ">u2")
        entries = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    else:
        numbers = [_integer(text) for text in texts(item, "LUTData")]
        entries = np.array([value & 0xFFFF for value in numbers if value is not None], dtype=np.uint16)
    if not 2 <= count <= len(entries) or not 1 <= bits <= 16:
        return None
    if start >= 32768 and first(header, "PixelRepresentation") == "1":
        start -= 65536  # SS written as US
    return entries[:count].astype(np.float32), start, bits


def _indices(values: npt.NDArray[np.integer] | Grey, table: _Lut) -> npt.NDArray[np.int64]:
    entries, start, _ = table
    return np.clip(values.astype(np.int64) - start, 0, len(entries) - 1)


def _range(values: Grey) -> tuple[float, float]:
    sample = values.ravel()[:: max(1, values.size // 1_000_000)]
    if sample.size == 0:
        return 0.0, 0.0
    low, high = (float(v) for v in np.percentile(sample, (_LOW_PERCENT, _HIGH_PERCENT)))
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _is_inverse(header: Dataset) -> bool:
    """MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing (PS3.3 C.8.11.3.1.2): one inversion."""
    photometric, shape = first(header, "PhotometricInterpretation"), first(header, "PresentationLUTShape")
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def _padding_number(stored: StoredPixels, keyword: str) -> int | None:
    found = texts(stored.header, keyword)
    value = _integer(found[0]) if found else None
    if value is None or stored.format.bits_allocated != 16:
        return value
    if stored.format.signed:  # the VR follows Pixel Representation, but not every writer does
        return value - 65536 if value >= 32768 else value
    return value & 0xFFFF


def _real(header: Dataset, keyword: str) -> float | None:
    found = texts(header, keyword)
    try:
        value = float(found[0]) if found else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < _LARGEST else None


def _integer(text: str) -> int | None:
    return int(text) if len(text) < 12 and text.removeprefix("-").isdigit() and text.isascii() else None
