"""What a file may cost us before it is refused: sizes, depth and counts, all far above what real images need."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one file; a file beyond any of them is refused as unreadable, not cut short.

    `max_header_bytes` is the kept part of the data set without Pixel Data (inflated, for Deflated Explicit VR);
    `max_elements` and `max_values` count over all nesting levels; `max_pixels` is
    Rows x Columns x Number of Frames x Samples per Pixel.
    """

    max_file_bytes: int = 2 * 1024**3
    max_header_bytes: int = 64 * 1024**2
    max_depth: int = 32
    max_elements: int = 200_000
    max_values: int = 1_000_000
    max_pixels: int = 200_000_000


DEFAULT_LIMITS = Limits()
