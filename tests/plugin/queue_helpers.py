"""Small builders for tests of the queue."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.findings import StudyStatus
from plugin.jobs import Queue
from plugin.rows import Claim, ObjectKind, ReceivedInstance, ResultObject
from plugin.settings import Settings, load

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@dataclass
class Clock:
    """A clock that only a test moves."""

    now: float = 1_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def settings_for(folder: Path, **sections: object) -> Settings:
    return load(None, {"data_dir": folder, **sections})


def received(study: str, number: int, at: float, *, content: str = "", ae: str = "XR") -> ReceivedInstance:
    sop_uid = f"{study}.9.{number}"
    digest = hashlib.sha256((content or sop_uid).encode()).hexdigest()
    return ReceivedInstance(
        study_uid=study,
        series_uid=f"{study}.9",
        sop_uid=sop_uid,
        sop_class_uid=DX,
        transfer_syntax="1.2.840.10008.1.2.1",
        relative_path=f"instances/{study}-{digest}.dcm",
        size=10,
        sha256=digest,
        calling_ae=ae,
        peer_host="127.0.0.1",
        received_at=at,
    )


def send(queue: Queue, study: str, numbers: Sequence[int], at: float) -> None:
    for number in numbers:
        assert queue.admit(received(study, number, at))


def whole(queue: Queue, study: str, numbers: Sequence[int], clock: Clock) -> None:
    """The study arrives and its quiet period passes."""
    send(queue, study, numbers, clock.now)
    assert queue.sweep(clock.forward(5.0)) == 1


def claimed(queue: Queue, clock: Clock, worker: str = "w", lease: float | None = None) -> Claim:
    claim = queue.claim(worker, clock.now, lease)
    assert claim is not None
    return claim


def objects_for(claim: Claim, heatmaps: int = 1) -> list[ResultObject]:
    kinds = [ObjectKind.HEATMAP] * heatmaps + [ObjectKind.REPORT]
    return [
        ResultObject(
            kind=kind,
            series_uid=f"2.25.{claim.job_id}.{kind is ObjectKind.REPORT:d}",
            sop_class_uid=SR if kind is ObjectKind.REPORT else SC,
            sop_uid=f"2.25.{claim.job_id}0{position}",
            relative_path=f"results/{claim.job_id}-{claim.token}/{position}.dcm",
            size=1,
            sha256="0" * 64,
        )
        for position, kind in enumerate(kinds)
    ]


def finish(queue: Queue, claim: Claim, clock: Clock, destinations: Sequence[str] = ("pacs",)) -> list[ResultObject]:
    objects = objects_for(claim)
    queue.finish(claim, objects, "{}", status=StudyStatus.SCORED, destinations=destinations, now=clock.now)
    return objects
