"""What a reader answers: in an order of his or her own, kept line by line as it comes, so that nothing is lost.

BENCH/answers/DIGEST.jsonl: a header, then a line for each answer. An answer that is given again counts as the last one
says; all are kept. DIGEST is that of the reader's name, which stands in the header and in no path.
"""

import fcntl
import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np

from inference.errors import DataError, ResourceError, UsageError
from training.readers import ANSWERS, Bench

FIRST, SECOND, TIE = "first", "second", "tie"  # the knee at the left, at the right, neither
CONFIDENCES: Final = (1, 2, 3)  # low, medium, high
_LONGEST: Final = 60  # characters of a name
_MOST_SECONDS: Final = 86_400.0
_VERSION: Final = 1


@dataclass(frozen=True)
class Shown:
    """A pair as a reader sees it: the knee at the left, and the one at the right."""

    pair: str
    first: str
    second: str


@dataclass(frozen=True)
class Answer:
    """Of one pair. choice: FIRST, SECOND or TIE, of the knees `first` and `second`. knee: the chosen one, or None.

    confidence: one of CONFIDENCES, or None. seconds: the pair was looked at. seen: different slices of each knee that
    were on the screen. at: when it was given, UTC.
    """

    pair: str
    first: str
    second: str
    choice: str
    knee: str | None
    confidence: int | None = None
    seconds: float = 0.0
    seen: tuple[int, int] = (0, 0)
    at: str = ""


@dataclass(frozen=True)
class Reading:
    """All that a reader has said: the last answer of each pair, in no order. ties: whether a tie could be answered."""

    reader: str
    ties: bool
    answers: dict[str, Answer]


def checked_name(reader: str) -> str:
    """A reader's name as it is kept: without blanks around it, composed (NFC).

    Raises:
        UsageError: it is empty, too long, or holds what cannot be printed.
    """
    name = unicodedata.normalize("NFC", reader.strip())
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise UsageError(f"--reader {reader!r}: a name of 1 to {_LONGEST} printable characters.")
    return name


def order_of(bench: Bench, reader: str) -> list[Shown]:
    """Pairs in a random order, and which knee is at the left: the same for a reader and a bench, another for others."""
    seed = hashlib.sha256(f"{bench.digest}\n{checked_name(reader)}".encode()).digest()
    generator = np.random.default_rng(list(seed))
    order, turned = generator.permutation(len(bench.pairs)), generator.random(len(bench.pairs)) < 0.5
    shown = []
    for place, swap in zip(order, turned, strict=True):
        pair, one, other = bench.pairs[place]
        shown.append(Shown(pair, other, one) if swap else Shown(pair, one, other))
    return shown


class AnswerFile:
    """A reader's file, open for one program at a time; closed by `with`."""

    def __init__(self, bench: Bench, reader: str, *, ties: bool = True) -> None:
        """Open, or begin.

        Raises:
            UsageError: the name is none; ties are asked for, or not, and the reader began otherwise.
            DataError: another program has it open, it is damaged, or of other pairs.
        """
        self.bench, self.reader, self.ties = bench, checked_name(reader), ties
        path = bench.folder / ANSWERS / f"{hashlib.sha256(self.reader.encode()).hexdigest()[:16]}.jsonl"
        with ExitStack() as opened:
            self._file: IO[bytes] = opened.enter_context(_opened(path))
            self._lock()
            self._cut_torn_line()
            if not path.stat().st_size:
                self._append({"version": _VERSION, "bench": bench.digest, "reader": self.reader, "ties": ties})
                _sync_folder(path.parent)
            self.answers = self._same(read_answers(bench, path)).answers
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, shown: Shown, choice: str, *, confidence: int | None, seconds: float, seen: Sequence[int]) -> Answer:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            UsageError: the choice is none, or a tie where there are none, or a number makes no sense.
            ResourceError: the disk takes nothing.
        """
        knees: dict[str, str | None] = {FIRST: shown.first, SECOND: shown.second, TIE: None}
        if choice not in knees or (choice == TIE and not self.ties):
            raise UsageError(f"{choice!r} is no answer here.")
        if confidence is not None and confidence not in CONFIDENCES:
            raise UsageError(f"a confidence of {confidence}: one of {CONFIDENCES}.")
        sizes = [self.bench.knees[knee].slices for knee in (shown.first, shown.second)]
        if not 0 <= seconds <= _MOST_SECONDS or len(seen) != 2 or any(
            not 0 <= count <= size for count, size in zip(seen, sizes, strict=True)
        ):  # fmt: skip
            raise UsageError(f"{seconds} seconds and {list(seen)} slices seen: that cannot be.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        answer = Answer(
            shown.pair, shown.first, shown.second, choice, knees[choice], confidence, round(seconds, 1),
            (seen[0], seen[1]), now,
        )  # fmt: skip
        self._append(asdict(answer))
        self.answers[answer.pair] = answer
        return answer

    def _same(self, reading: Reading) -> Reading:
        if reading.reader != self.reader:
            raise DataError(f"the file of {self.reader} holds the answers of another reader.")
        if reading.ties is not self.ties:
            said, how = ("could", "without") if reading.ties else ("could not", "with")
            raise UsageError(
                f"{self.reader} {said} answer 'cannot tell' until now: go on {how} --no-ties, or take another name."
            )
        return reading

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"{self.reader} is reading already, in another window or program: end that one first."
            ) from error

    def _cut_torn_line(self) -> None:
        """A kill in the middle of a line leaves its beginning: that answer had not been taken."""
        self._file.seek(0)
        whole = self._file.read()
        if end := len(whole) - (whole.rfind(b"\n") + 1):
            self._file.truncate(len(whole) - end)

    def _append(self, values: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(values).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ResourceError(f"the answer cannot be kept ({error}): make room on the disk.") from error


def read_answers(bench: Bench, path: Path) -> Reading:
    """What stands in one file; a torn last line counts for nothing.

    Raises:
        DataError: the file is damaged, or of other pairs.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        head = json.loads(lines[0])
        if head["version"] != _VERSION or head["bench"] != bench.digest:
            raise DataError(f"{path} has answers about other pairs than {bench.folder}: move it to where it belongs.")
        pairs = {name: {one, other} for name, one, other in bench.pairs}
        answers: dict[str, Answer] = {}
        for line in lines[1:]:
            answer = _answer(json.loads(line), pairs)
            answers[answer.pair] = answer
        return Reading(str(head["reader"]), bool(head["ties"]), answers)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is damaged ({error}): take it out of the folder, or mend that line.") from error


def all_readings(bench: Bench) -> list[Reading]:
    """Of every reader who has answered, by name.

    Raises:
        DataError: as `read_answers`, or a name is there twice.
    """
    found = [read_answers(bench, path) for path in sorted((bench.folder / ANSWERS).glob("*.jsonl"))]
    if len({one.reader for one in found}) < len(found):
        raise DataError(f"{bench.folder / ANSWERS} has two files of one reader: keep one.")
    return sorted((one for one in found if one.answers), key=lambda one: one.reader)


def _answer(values: dict[str, Any], pairs: Mapping[str, set[str]]) -> Answer:
    answer = Answer(**{**values, "seen": tuple(values["seen"])})
    chosen = {FIRST: answer.first, SECOND: answer.second, TIE: None}[answer.choice]
    if answer.knee != chosen or {answer.first, answer.second} != pairs[answer.pair]:
        raise ValueError(f"the answer about {answer.pair} is about other knees than that pair's")
    return answer


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(exist_ok=True)
        return path.open("a+b")
    except OSError as error:
        raise DataError(f"answers cannot be kept in {path.parent} ({error.strerror}): make it writable.") from error


def _sync_folder(folder: Path) -> None:
    """The new file's name is on the disk, too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
