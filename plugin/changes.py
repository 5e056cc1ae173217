"""Follows Orthanc's log of changes and puts studies that are whole into the queue. Nothing is missed, nothing twice.

Orthanc logs every new instance and, once a study was quiet for its StableAge, that it is stable; the second is lost
when Orthanc ends in between. So the stored cursor never passes a new instance before its study is in the queue: after
any end of any process the log is read again from there, and what turns out to be known already changes nothing.
docs/orthanc.md tells the whole story.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from plugin import logs
from plugin.jobs import Queue
from plugin.orthanc_api import OrthancApi
from plugin.rows import Cursor, Source

_log = logging.getLogger(__name__)

NAME = "orthanc"
FIRST_START = "orthanc-first-start"  # its cursor is a time: when we first followed, in whole POSIX seconds
ASK_SECONDS = 60.0  # without news of a study; soon after the start it is quiet_seconds
NEW_INSTANCE = "NewInstance"
STABLE_STUDY = "StableStudy"


@dataclass
class Waiting:
    """New instances whose study is not in the queue yet: their change, and when to ask about them (clock's seconds)."""

    _entries: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, instance: str, seq: int, ask_at: float) -> None:
        """Remember a new instance; of two changes of the same one (it was overwritten) the first counts."""
        first = self._entries[instance][0] if instance in self._entries else seq
        self._entries[instance] = (first, ask_at)

    def drop(self, instances: Iterable[str]) -> None:
        """These are in the queue, or gone."""
        for instance in instances:
            self._entries.pop(instance, None)

    def postpone(self, instances: Iterable[str], ask_at: float) -> None:
        """Their study is not whole yet."""
        for instance in instances:
            if instance in self._entries:
                self._entries[instance] = (self._entries[instance][0], ask_at)

    def due(self, now: float) -> list[str]:
        """Those that are to be asked about."""
        return [instance for instance, (_, ask_at) in self._entries.items() if ask_at <= now]

    def is_due(self, instance: str, now: float) -> bool:
        """Whether this one is to be asked about."""
        return instance in self._entries and self._entries[instance][1] <= now

    def covered(self, seen: int) -> int:
        """The last change before which nothing waits, `seen` being the last that was read."""
        return min((seq for seq, _ in self._entries.values()), default=seen + 1) - 1

    def __contains__(self, instance: object) -> bool:
        return instance in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Follower:
    """One Orthanc, followed. `clock` gives POSIX seconds; `identity` is that of Orthanc's database, if it is known."""

    def __init__(
        self,
        api: OrthancApi,
        queue: Queue,
        *,
        clock: Callable[[], float],
        quiet_seconds: float,
        source: Source,
        identity: str = "",
    ) -> None:
        self._api, self._queue, self._clock = api, queue, clock
        self._identity = identity
        self._source = source
        self._waiting = Waiting()
        self._stable: dict[str, None] = {}  # studies that became stable and were not looked at yet
        self._spared: dict[str, float] = {}  # studies at which Orthanc failed, until when
        self._patience = quiet_seconds
        self._seen = 0
        self._stored = -1
        self.last_change = 0

    @property
    def cursor(self) -> int:
        """The change up to which everything is in the queue."""
        return self._stored

    @property
    def waiting(self) -> int:
        """New instances whose study is not whole yet."""
        return len(self._waiting)

    def begin(self, *, since: float | None, existing: bool) -> None:
        """Find the place to go on from. Raises WebError and ResourceError.

        At the very first start that is the first change at `since` (POSIX seconds; None: the end of the log), or the
        beginning, with all studies, when `existing` ones are wanted. A log that belongs to another database, or that
        ends before our place (Orthanc forgets the changes of what is deleted, and backups are restored), is read again
        from the first change at `since`, or at our first start.
        """
        last = self._api.last_change()
        cursor = self._queue.cursor(NAME)
        if cursor is None:
            if existing:
                self._take_all()
            place = 0 if existing else last if since is None else self._change_before(since, last)
            self._queue.move_cursor(FIRST_START, Cursor("", 0 if existing else int(since or self._clock())))
            logs.event(_log, "orthanc.first_start", cursor=place, existing=existing)
        elif cursor.seq > last or (self._identity and cursor.identity and cursor.identity != self._identity):
            place = self._change_before(self._first_start() if since is None else since, last)
            logs.event(_log, "orthanc.other_log", level=logging.WARNING, cursor=cursor.seq, last=last, place=place)
        else:
            place = cursor.seq
        self._seen = place
        self._store(place)

    def _first_start(self) -> float:
        first = self._queue.cursor(FIRST_START)
        return float(first.seq) if first else 0.0

    def step(self) -> int:
        """Read what is new and queue what is whole; the number of revisions made. Raises WebError, ResourceError.

        The step after such an error goes on with the others: a study at which Orthanc fails is left alone for a while.
        """
        self._read()
        self._patience = ASK_SECONDS  # what was there at the start is asked about earlier
        taken = sum(self._take(study) for study in tuple(self._stable))
        taken += self._ask()
        self._store(self._waiting.covered(self._seen))
        return taken

    def _read(self) -> None:
        """Take note of new instances, and of the studies that became stable, in that order, each once."""
        while True:
            page = self._api.changes(self._seen)
            for change in page.entries:
                if change.kind == NEW_INSTANCE:
                    self._waiting.add(change.resource, change.seq, self._clock() + self._patience)
                elif change.kind == STABLE_STUDY:
                    self._stable[change.resource] = None
            self._seen = max(self._seen, page.last)
            self.last_change = self._seen
            if page.done:
                return

    def _ask(self) -> int:
        """Ask about instances that wait for long: their study's stability may be lost with an earlier Orthanc."""
        taken = 0
        now = self._clock()
        for instance in self._waiting.due(now):
            if not self._waiting.is_due(instance, now):  # it went with another one of its study
                continue
            study = self._api.parent_study(instance)
            if study is None:
                self._waiting.drop([instance])
            else:
                taken += self._take(study.identifier)
                self._waiting.postpone([instance], now + self._patience)
        return taken

    def _take(self, identifier: str) -> bool:
        """Put a study into the queue if it is stable now; whether that made a revision."""
        now = self._clock()
        if now < self._spared.get(identifier, now):
            return False
        self._spared[identifier] = now + ASK_SECONDS  # should what follows fail
        made = self._look(identifier)
        del self._spared[identifier]
        self._stable.pop(identifier, None)
        return made

    def _look(self, identifier: str) -> bool:
        study = self._api.study(identifier)
        if study is None:
            return False
        instances = self._api.instances(identifier)
        known = [instance.remote for instance in instances]
        if not study.is_stable:  # more has come since: it will be stable again, or be asked about
            self._waiting.postpone(known, self._clock() + self._patience)
            return False
        revision = self._queue.take_study(
            study.study_uid, instances, self._source, self._clock(), arrived=self._waiting
        )
        self._waiting.drop(known)
        if revision is not None:
            logs.event(_log, "study.whole", study_uid=study.study_uid, revision=revision, instances=len(instances))
        return revision is not None

    def _take_all(self) -> None:
        for identifier in self._api.all_studies():
            self._take(identifier)

    def _change_before(self, when: float, last: int) -> int:
        """The last change before `when`, by halving: changes are in the order of time."""
        low, high = 0, last
        while low < high:
            page = self._api.changes((low + high) // 2, limit=1)
            if page.entries and page.entries[0].at < when:
                low = page.entries[0].seq
            else:
                high = (low + high) // 2
        return low

    def _store(self, place: int) -> None:
        if place != self._stored:
            self._queue.move_cursor(NAME, Cursor(self._identity, place))
            self._stored = place
