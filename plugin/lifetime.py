"""When a child process must end: on SIGTERM or SIGINT, and when its parent is gone."""

import os
import signal
import threading
from types import FrameType


class Lifetime:
    """`stopping` is set once the process should finish what it does and go."""

    def __init__(self, parent: int | None = None) -> None:
        """`parent` is the process id to live for; None means to live on without one."""
        self.stopping = threading.Event()
        self._parent = parent

    def install(self) -> "Lifetime":
        """Stop on SIGTERM and SIGINT; call it from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        return self

    def over(self) -> bool:
        """Whether it is time to go."""
        if self._parent is not None and os.getppid() != self._parent:
            self.stopping.set()
        return self.stopping.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not longer than life; whether it is over."""
        self.stopping.wait(seconds)
        return self.over()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping.set()
