"""The one boundary for exceptions."""

import pytest

from plugin.boundary import Boundary


def test_an_exception_ends_at_the_handler() -> None:
    seen: list[Exception] = []
    with Boundary(seen.append) as boundary:
        raise MemoryError("x")
    assert isinstance(seen[0], MemoryError)
    assert boundary.error is seen[0]


def test_a_good_end_is_none_of_its_business() -> None:
    with Boundary(lambda _error: pytest.fail("called")) as boundary:
        pass
    assert boundary.error is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_wish_to_stop_passes_through(kind: type[BaseException]) -> None:
    with pytest.raises(kind), Boundary(lambda _error: pytest.fail("called")):
        raise kind


def test_what_the_handler_raises_gets_out() -> None:
    def again(error: Exception) -> None:
        raise error

    with pytest.raises(ValueError, match="x"), Boundary(again):
        raise ValueError("x")
