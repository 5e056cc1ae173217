"""How long to wait before trying again. Pure, and without jitter: the same history gives the same times."""


def backoff(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after `failures` (1, 2, ...) in a row: `first`, doubled with each further, at most `longest`."""
    doublings = min(max(failures - 1, 0), 60)  # beyond 2**60 only overflow is to be gained
    return min(first * 2.0**doublings, longest)
