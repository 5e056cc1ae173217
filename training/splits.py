"""Patient-wise splits: a patient is in one part only, with both knees and all visits."""

import hashlib
from collections.abc import Iterable, Sequence

from inference.errors import DataError


def held_back(subjects: Sequence[str], fraction: float, salt: str = "tune") -> list[bool]:
    """True for the patients that are held back from training; decided by a hash, so it never changes with the order.

    Args:
        subjects: one patient identifier per image.
        fraction: share of the patients, 0..1.
        salt: another salt gives another, independent choice.
    """
    limit = int(fraction * 2**32)
    return [int.from_bytes(hashlib.sha256(f"{salt}:{subject}".encode()).digest()[:4]) < limit for subject in subjects]


def check_disjoint(**parts: Iterable[str]) -> None:
    """Fail loudly when a patient is in two parts.

    Raises:
        DataError: names the parts and how many patients they share.
    """
    seen = {name: set(subjects) for name, subjects in parts.items()}
    names = sorted(seen)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            shared = seen[first] & seen[second]
            if shared:
                raise DataError(
                    f"{len(shared)} patient(s) are both in {first!r} and in {second!r}: a patient belongs into one "
                    "part only. Split by patient and try again."
                )
