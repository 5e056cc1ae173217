"""Decode workers: processes started afresh, a bounded number of films ahead, results in the order of the films.

Processes, never forked: a fork after torch or OpenMP has started threads can hang. Threads were measured as well
(docs/embeddings.md).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from inference.errors import ResourceError
from training.embed_knees import Film, PreparedKnee, read_film

AHEAD = 4  # films a worker may be ahead of the network


def prepared(films: Iterable[Film], workers: int, *, threads: bool = False) -> Iterator[list[PreparedKnee]]:
    """What came of each film, in order; at most `workers * AHEAD` of them are held.

    Args:
        films: taken one after another.
        workers: how many; 0 reads in this process, without any.
        threads: threads of this process instead of processes, for comparison.

    Raises:
        ResourceError: a worker was ended from outside, as for want of memory.
    """
    if not workers:
        yield from map(read_film, films)
        return
    pool: Executor = ThreadPoolExecutor(workers) if threads else _processes(workers)
    waiting: deque[Future[list[PreparedKnee]]] = deque()
    try:
        for film in films:
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


def _processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """One thread each: there are as many workers as there is work."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
