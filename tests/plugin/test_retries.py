"""Back-off."""

from plugin.retries import backoff


def test_doubles_up_to_the_longest() -> None:
    assert [backoff(n, 2.0, 15.0) for n in (1, 2, 3, 4, 5)] == [2.0, 4.0, 8.0, 15.0, 15.0]


def test_years_of_failures_do_not_overflow() -> None:
    assert backoff(10**9, 2.0, 300.0) == 300.0
