"""How far a command is, for people: a line on stderr every few seconds."""

import sys
import time

_EVERY = 5.0  # seconds


class Said:
    """How many of what, how quickly, how long still."""

    def __init__(self, what: str = "knees") -> None:
        self._what = what
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int, failed: int) -> None:
        """Say it, if it is time."""
        now = time.monotonic()
        if now - self._last < _EVERY and done < total:
            return
        self._last = now
        rate = done / max(now - self._began, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        print(
            f"{done}/{total} {self._what}, {rate:.1f}/s, {failed} failed, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
