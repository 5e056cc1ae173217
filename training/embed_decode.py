"""Decode workers: processes started afresh, a bounded number of films ahead. What is known is only hashed.

Processes, never forked: a fork after torch or OpenMP has started threads can hang.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from inference.errors import ResourceError
from training.embed_knees import Film, PreparedKnee, finder, known_film, read_film

_HASHING = 4  # threads
AHEAD = 4  # films a worker may be ahead of the network


def prepared(films: Iterable[Film], workers: int, *, threads: bool = False) -> Iterator[list[PreparedKnee]]:
    """What came of each film: first of those that are known, then of the others; `workers * AHEAD` are held at most.

    Args:
        films: the cohort's.
        workers: how many; 0 reads in this process, without any.
        threads: threads of this process instead of processes, for comparison.

    Raises:
        ResourceError: a worker was ended from outside, as for want of memory.
    """
    unknown: list[Film] = []
    yield from _known(films, unknown)
    if not workers or not unknown:
        yield from map(read_film, unknown)
        return
    pool: Executor = ThreadPoolExecutor(workers) if threads else _processes(workers)
    waiting: deque[Future[list[PreparedKnee]]] = deque()
    try:
        for film in unknown:
            waiting.append(pool.submit(read_film, film))
            if len(waiting) >= workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a decode worker was ended from outside, perhaps for want of memory: use fewer --workers. What is done is "
            "kept; the same command goes on."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _known(films: Iterable[Film], unknown: list[Film]) -> Iterator[list[PreparedKnee]]:
    """Films of which every knee was met before are hashed by threads, which starts no process; the others are added."""
    met: list[Film] = []
    for film in films:
        (met if all(film.known) else unknown).append(film)
    if not met:
        return
    finder()  # by one thread, before several ask for it
    with ThreadPoolExecutor(_HASHING) as pool:
        for film, knees in zip(met, pool.map(known_film, met), strict=True):
            if knees is None:
                unknown.append(film)
            else:
                yield knees


def _processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """One thread each: there are as many workers as there is work."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
