"""One run at a time in a folder. No torch: commands that need none start in a second."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.errors import DataError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One run at a time in a folder, which is made; a killed one leaves no lock behind.

    Raises:
        DataError: another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"another run is at work in {folder}: wait for it, or name another folder.") from error
        yield
