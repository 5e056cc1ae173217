"""What goes into the queue and comes out of it: frozen rows. Times are POSIX seconds (UTC) from the caller's clock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath


class JobState(StrEnum):
    """Where the scoring of one revision of a study stands."""

    QUEUED = "queued"  # whole, waits for a worker (or for its next attempt)
    RUNNING = "running"  # claimed, under a lease
    DONE = "done"  # results are on disk and in the outbox
    DEAD = "dead"  # given up, with the reason; `genu retry` re-queues it
    SUPERSEDED = "superseded"  # given up, and a later revision made it unnecessary


class DeliveryState(StrEnum):
    """Where the delivery of one object to one destination stands."""

    PENDING = "pending"
    DELIVERED = "delivered"  # confirmed by the destination for this very instance
    DEAD = "dead"  # refused again and again, with the status; `genu retry` re-queues it


class ObjectKind(StrEnum):
    """What a result object is."""

    HEATMAP = "heatmap"  # where a model looked; of MR series the multi-frame pictures and the map too
    CARD = "card"  # what a viewer shows of a refusal
    REPORT = "report"


def local_time(seconds: float) -> datetime:
    """POSIX seconds as local, aware time."""
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone()


@dataclass(frozen=True, order=True)
class Source:
    """Who sent an instance."""

    calling_ae: str
    peer_host: str


@dataclass(frozen=True)
class ReceivedInstance:
    """One instance whose bytes are on disk and fsynced. `relative_path` is below data_dir, `size` in bytes."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax: str
    relative_path: str
    size: int
    sha256: str
    calling_ae: str
    peer_host: str
    received_at: float


@dataclass(frozen=True)
class RemoteInstance:
    """One instance that a server keeps and knows as `remote`; `size` in bytes."""

    series_uid: str
    sop_uid: str
    remote: str
    modality: str
    size: int


@dataclass(frozen=True)
class Cursor:
    """How far the changes of a server's database are in the queue."""

    identity: str
    seq: int


@dataclass(frozen=True)
class Predecessor:
    """The report of the revision before, for the Predecessor Documents Sequence (0040,A360)."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Repeat:
    """What a revision that a person asked for repeats: when the last report was made, and what it superseded."""

    created_at: float
    predecessor: Predecessor | None


@dataclass(frozen=True)
class Input:
    """One instance of a claimed study: a received file, or one that Orthanc keeps; `is_new` if no revision had it."""

    sop_uid: str
    series_uid: str
    relative_path: PurePosixPath | None
    remote: str | None
    modality: str
    size: int
    sha256: str | None
    is_new: bool
    revision: int = 1  # the first that has it


@dataclass(frozen=True)
class Claim:
    """A worker's right to one job until `lease` seconds after its last heartbeat, fenced by `token`."""

    job_id: int
    study_uid: str
    revision: int
    token: int
    attempt: int
    worker_id: str
    lease: float
    created_at: float
    inputs: tuple[Input, ...]
    sources: tuple[Source, ...]
    predecessor: Predecessor | None
    again: bool = False  # asked for by a person: nothing new has come
    repeat: Repeat | None = None

    @property
    def created(self) -> datetime:
        """The job's creation: the same on each attempt, so that each writes the same bytes."""
        return local_time(self.created_at)


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object that a worker wrote and fsynced. `relative_path` is below data_dir."""

    kind: ObjectKind
    series_uid: str
    sop_class_uid: str
    sop_uid: str
    relative_path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DeliveryTask:
    """One object that is to go to one destination, leased by `owner`."""

    delivery_id: int
    destination: str
    owner: str
    study_uid: str
    revision: int
    kind: ObjectKind
    sop_class_uid: str
    sop_uid: str
    relative_path: PurePosixPath
    attempts: int


@dataclass(frozen=True)
class JobRow:
    """One job as `genu status` shows it."""

    job_id: int
    study_uid: str
    revision: int
    state: JobState
    status: str | None  # a StudyStatus value once the job ended
    attempts: int
    created_at: float
    finished_at: float | None
    error: str | None
    result: str | None  # the line of results.jsonl


@dataclass(frozen=True)
class DeliveryRow:
    """One delivery as `genu status` shows it."""

    study_uid: str
    revision: int
    kind: ObjectKind
    sop_uid: str
    destination: str
    state: DeliveryState
    attempts: int
    error: str | None


@dataclass(frozen=True)
class DestinationRow:
    """One destination's counts, and since when and why it is down (`failures` in a row, 0 when it is up)."""

    name: str
    pending: int
    delivered: int
    dead: int
    failures: int
    next_attempt_at: float | None
    error: str | None


@dataclass(frozen=True)
class Snapshot:
    """The whole queue at one moment."""

    instances: int
    receiving: int  # studies with instances that no revision has yet
    jobs: dict[JobState, int]
    destinations: tuple[DestinationRow, ...]
    dead_jobs: tuple[JobRow, ...]
    dead_deliveries: tuple[DeliveryRow, ...]

    @property
    def dead(self) -> int:
        """The number of dead letters: studies given up and objects that a destination does not take."""
        return len(self.dead_jobs) + len(self.dead_deliveries)

    @property
    def is_empty(self) -> bool:
        """Nothing is being received, waits for a worker, runs, or waits for delivery. Dead letters do not count."""
        working = self.jobs[JobState.QUEUED] + self.jobs[JobState.RUNNING]
        return not (self.receiving or working or any(row.pending for row in self.destinations))


@dataclass(frozen=True)
class Retried:
    """How many dead letters went back to work."""

    jobs: int
    deliveries: int
