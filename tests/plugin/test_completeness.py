"""When a study is whole: quiet period, hard maximum, restart."""

import pytest

from plugin.completeness import Arrivals, Wait, is_whole, whole_at

WAIT = Wait(quiet=5.0, maximum=30.0)


@pytest.mark.parametrize(
    ("first", "last", "opened_at", "expected"),
    [
        (100.0, 100.0, 0.0, 105.0),
        (100.0, 110.0, 0.0, 115.0),
        (100.0, 129.0, 0.0, 130.0),  # the hard maximum
        (100.0, 101.0, 200.0, 205.0),  # after a restart a full quiet period anew
        (100.0, 224.0, 199.0, 229.0),  # and the maximum anew as well
    ],
)
def test_whole_at(first: float, last: float, opened_at: float, expected: float) -> None:
    assert whole_at(Arrivals(first, last), opened_at, WAIT) == expected


def test_not_a_moment_earlier() -> None:
    arrivals = Arrivals(100.0, 100.0)
    assert not is_whole(arrivals, 0.0, WAIT, 104.999)
    assert is_whole(arrivals, 0.0, WAIT, 105.0)
