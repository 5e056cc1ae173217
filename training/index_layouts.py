"""Headers laid out like one met before are compared with it as a whole, and not walked.

A layout holds where the heads of all elements lay in one file, and their bytes. Where the next file has the same bytes
at the same places, every step of a walk would have been the same, so all elements are where they were. Where it
differs (a longer number, an element more or less), that element is walked, what follows is shifted, and the comparison
goes on. The images of a series and the films of one machine differ in few elements.
"""

import struct
from bisect import bisect_left
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.index_columns import NO_VALUES, Values
from training.index_elements import CHARSET, SPECIAL_GROUPS, WANTED, Found, Walk
from training.index_fields import SHARED_GROUPS, charset_of, codes_of_element, fields, finished

Kind = tuple[str, bytes, bool, int]  # transfer syntax, class, whether explicit, greatest depth
_MOST_KINDS, _MOST_LAYOUTS = 32, 4
_MOST_HEADS, _LONGEST = 2000, 1 << 18
_MOST_CHANGES: Final = 12  # a file that differs in more elements is walked
_MOST_DEBT: Final = 96  # after so many changes the file at hand is the better example
# What a file earns and what trying costs, in walks of a file: where nothing fits, a tenth of the time is lost at most.
_FILE, _HIT, _CHANGED, _FAILED, _LEARNT, _MOST_CREDIT = 0.1, 0.5, 0.25, 1.0, 1.0, 12.0
_PIXEL_GROUP, _CHARSET_TAG = 0x7FE0, 0x00080005
_tag_at = struct.Struct("<HH").unpack_from
_key_at = struct.Struct("<L").unpack_from


class Layout:
    """Where the elements of one file lay, up to its pixels; `tags` and `starts` are of those outside of sequences."""

    def __init__(self, walk: Walk, found: Found, explicit: bool, table: npt.NDArray[np.intp], tags: list[int]) -> None:
        outer = np.flatnonzero(table[:, 2] == 0)
        sizes = table[:, 1] - table[:, 0]
        sizes[-1] = 4  # of the pixels the tag is enough
        ends = np.cumsum(sizes)
        self.index = np.repeat(table[:, 0] - ends + sizes, sizes) + np.arange(ends[-1])
        self.bytes = np.frombuffer(walk.data, np.uint8)[self.index]
        self.same = self.bytes.tobytes()
        self.firsts = (ends - sizes)[outer]  # where in `bytes` those of each element begin
        self.starts: list[int] = table[outer, 0].tolist()
        self.tags, self.explicit, self.debt = tags, explicit, 0
        charset = charset_of(found)
        self.fields = fields(charset)
        self.taken: list[tuple[int, Any, int, int]] = []  # place in the row, what makes the value, of which bytes
        self.taken_of: list[int] = []  # in which element
        values, codes = table[outer, 1].tolist(), codes_of_element(charset, explicit)
        for key, raw in found.items():
            if key == CHARSET or not raw:
                continue
            place, convert = self.fields[key]
            number = bisect_left(tags, (key & 0xFFFF) << 16 | key >> 16)
            begin, end = values[number], values[number] + len(raw)
            if not isinstance(raw, bytes):
                convert, begin, end = codes, self.starts[number], self.starts[number + 1]
            self.taken.append((place, convert, begin, end))
            self.taken_of.append(number)

    def agreeing(self, walk: Walk, number: int, shift: int) -> int:
        """From this element on, the number of the first one that differs; that behind the last one when none does."""
        end = len(self.tags)
        if not walk.reaches(self.starts[-1] + 12 + shift):  # with the whole head of the pixels
            return number
        data = np.frombuffer(walk.data, np.uint8)
        if number == 0:
            taken = data.take(self.index + shift if shift else self.index)
            if taken.tobytes() == self.same:
                return end
            differs = taken != self.bytes
            return int(self.firsts.searchsorted(differs.argmax(), "right")) - 1
        first = int(self.firsts[number])
        differs = data.take(self.index[first:] + shift) != self.bytes[first:]
        where = int(differs.argmax())
        return int(self.firsts.searchsorted(first + where, "right")) - 1 if differs[where] else end

    def fill(self, row: list[object], data: bytes, shift: int, begin: int, end: int) -> None:
        """Put into a row the values of the elements `begin` to `end`, which lie as they lay, but for the shift."""
        taken = self.taken
        if end - begin < len(self.tags):
            taken = taken[bisect_left(self.taken_of, begin) : bisect_left(self.taken_of, end)]
        for place, convert, first, last in taken:
            row[place] = convert(data[first + shift : last + shift])

    def fill_changed(self, row: list[object], walk: Walk, shift: int, agreeing: int) -> bool:
        """The whole row of a file that differs in a few elements; False when in too many, or in what matters."""
        number, last, changes, end = 0, 0, 0, agreeing
        while True:
            self.fill(row, walk.data, shift, number, end)
            if end == len(self.tags):
                self.debt += changes
                return True
            changes, number = changes + 1, end
            pos = self.starts[number] + shift
            if changes > _MOST_CHANGES or not walk.reaches(pos + 8):
                return False
            group, element = _tag_at(walk.data, pos)
            tag = group << 16 | element
            if tag > self.tags[number]:  # some are missing
                after = bisect_left(self.tags, tag)
                if after == len(self.tags) or _CHARSET_TAG in self.tags[number:after]:
                    return False
                shift -= self.starts[after] - self.starts[number]
                number = after
            else:
                more = tag < self.tags[number]
                if group in SPECIAL_GROUPS or (more and tag <= max(last, self.tags[number - 1] if number else 0)):
                    return False
                stop = self._step(row, walk, pos)
                if stop is None:
                    return False
                number, last = number + (not more), tag
                shift = shift + stop - pos if more else stop - self.starts[number]
            end = self.agreeing(walk, number, shift)

    def _step(self, row: list[object], walk: Walk, pos: int) -> int | None:
        """Walk one element; returns where it ends, or None when it is one that must not differ."""
        found: Found = {}
        end = walk.elements(pos, None, WANTED, self.explicit, 0, found, until=pos + 1)
        if CHARSET in found or SHARED_GROUPS in found:
            return None
        for key, raw in found.items():
            if raw:
                place, convert = self.fields[key]
                row[place] = convert(raw)
        return end


class Layouts:
    """The layouts met last, of each kind of file a few; threads may share them, since what is kept is only replaced.

    `metas` are file meta information: what stands before and behind its instance UID, its transfer syntax and class.
    """

    def __init__(self) -> None:
        self.metas: tuple[tuple[bytes, bytes, str, bytes], ...] = ()
        self._met: dict[Kind, list[Layout]] = {}
        self._credit: dict[Kind, float] = {}

    def values(self, kind: Kind, walk: Walk, start: int) -> Values | None:
        """The row of a file that is laid out nearly as an earlier one; None when there is none.

        Raises OddError as a walk would.
        """
        met = self._met.get(kind)
        if not met:
            return None
        row: list[object] = [kind[0], *NO_VALUES[1:]]
        rich = self._earn(kind, _FILE) >= 1
        nearest, most = None, 0
        for layout in met if rich else met[:1]:
            shift = start - layout.starts[0]
            same = layout.agreeing(walk, 0, shift)
            if same == len(layout.tags):
                layout.fill(row, walk.data, shift, 0, same)
                if layout is not met[0]:
                    self._met[kind] = [layout, *(other for other in met if other is not layout)]
                self._earn(kind, _HIT)
                return finished(row)
            if same > most:
                nearest, most = layout, same
        if nearest is None or not rich:
            return None
        if nearest.debt > _MOST_DEBT:
            self._met[kind] = [other for other in met if other is not nearest]
            return None
        if nearest.fill_changed(row, walk, start - nearest.starts[0], most):
            self._earn(kind, _CHANGED)
            return finished(row)
        self._earn(kind, -_FAILED)
        return None

    def _earn(self, kind: Kind, credit: float) -> float:
        """More or less credit of a kind: where files have little in common, most are walked and none is remembered."""
        self._credit[kind] = credit = min(self._credit.get(kind, _MOST_CREDIT) + credit, _MOST_CREDIT)
        return credit

    def learn(self, kind: Kind, walk: Walk, found: Found) -> None:
        """Remember the layout of a file that was walked to its pixels, if its tags rise (PS3.5 section 7.1)."""
        pos, _, depth = walk.heads[-1]
        if len(walk.heads) > _MOST_HEADS or pos > _LONGEST or len(kind[1]) > 64 or SHARED_GROUPS in found:
            return
        if depth or _key_at(walk.data, pos)[0] & 0xFFFF != _PIXEL_GROUP or self._credit.get(kind, 1) < 1:
            return
        table = np.fromiter(chain.from_iterable(walk.heads), np.intp, 3 * len(walk.heads)).reshape(-1, 3)
        starts = table[table[:, 2] == 0, 0]
        words = np.frombuffer(walk.data, np.uint8)[starts[:, None] + np.arange(4)].view("<u2").astype(np.int64)
        tags = words[:, 0] << 16 | words[:, 1]
        if (np.diff(tags) <= 0).any():
            return
        if CHARSET in found:  # its value decides what others mean: it has to be the same
            number = int(np.flatnonzero(table[:, 0] == starts[np.searchsorted(tags, _CHARSET_TAG)])[0])
            begin = int(table[number, 1])
            table = np.insert(table, number + 1, (begin, begin + len(found[CHARSET]), 1), axis=0)
        if kind not in self._met and len(self._met) >= _MOST_KINDS:
            self._met, self._credit = {}, {}
        self._earn(kind, -_LEARNT)
        self._met[kind] = [Layout(walk, found, kind[2], table, tags.tolist()), *self._met.get(kind, ())][:_MOST_LAYOUTS]
