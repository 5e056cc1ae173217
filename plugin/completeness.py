"""When a study is whole. Pure: the clock is given."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wait:
    """How long to wait for more of a study, in seconds."""

    quiet: float
    maximum: float


@dataclass(frozen=True)
class Arrivals:
    """When instances of one study came that no revision has yet: the first of them, and the last of the study."""

    first: float
    last: float


def whole_at(arrivals: Arrivals, opened_at: float, wait: Wait) -> float:
    """The time at which the study counts as whole if nothing more comes.

    `opened_at` is when the listener started: senders that were cut off by a restart get a full quiet period anew, and
    the hard maximum counts anew as well, because nothing could arrive while the listener was away.
    """
    quiet_over = max(arrivals.last, opened_at) + wait.quiet
    patience_over = max(arrivals.first, opened_at) + wait.maximum
    return min(quiet_over, patience_over)


def is_whole(arrivals: Arrivals, opened_at: float, wait: Wait, now: float) -> bool:
    """Whether the study counts as whole at `now`."""
    return now >= whole_at(arrivals, opened_at, wait)
