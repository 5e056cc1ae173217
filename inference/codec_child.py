"""The process in which GDCM decodes: damaged bit streams make it abort, and then only this process ends.

Run by file name by `inference.isolated`; reads requests from standard input and answers on standard output:
u32 length of a JSON description, u32 length of the frame, both; then u8 status (0 good), u32 length, the pixels.
Ends at the end of its input, so that it never outlives its parent.
"""

import json
import resource
import struct
import sys
from typing import Any, BinaryIO

import gdcm

_MEMORY_BYTES = 8 << 30


def decode(request: dict[str, Any], frame: bytes) -> bytes:
    """One frame as GDCM gives it: colour by pixel, cells as wide as the precision needs."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(request["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if request["samples"] > 1:
        image.SetPlanarConfiguration(request["planar"])
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    stored = request["stored"]
    pixel_format = gdcm.PixelFormat(request["samples"], request["allocated"], stored, stored - 1, request["signed"])
    image.SetPixelFormat(pixel_format)
    # GDCM's wrapper hands bytes over as a text.
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")
    return pixels


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        sys.exit(0)
    return data


def main() -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a patient's image
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        described, length = struct.unpack("<LL", _exactly(source, 8))
        request = json.loads(_exactly(source, described))
        frame = _exactly(source, length)
        try:
            status, pixels = 0, decode(request, frame)
        except (RuntimeError, ValueError, TypeError, MemoryError, OverflowError):
            status, pixels = 1, b""
        sink.write(struct.pack("<BL", status, len(pixels)) + pixels)
        sink.flush()


if __name__ == "__main__":
    main()
