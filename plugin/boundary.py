"""The one place where exceptions of any kind end: a context manager that hands them to a handler.

An `__exit__` instead of `except Exception`: KeyboardInterrupt and SystemExit pass through, and nothing else in the
house needs a broad except.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal


class Boundary(AbstractContextManager["Boundary"]):
    """Within the block every Exception goes to `handle`, which turns it into a state of the queue; none gets out."""

    def __init__(self, handle: Callable[[Exception], None]) -> None:
        self._handle = handle
        self.error: Exception | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False] | bool:
        """Swallow what was handled."""
        if not isinstance(error, Exception):
            return False
        self.error = error
        self._handle(error)
        return True
