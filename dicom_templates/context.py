"""What a composition needs to know besides the findings: when, by which software, in place of which earlier report."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class PredecessorRef:
    """An earlier report that the new one supersedes (PS3.3 C.17.2, Predecessor Documents Sequence)."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class ReportContext:
    """The circumstances of one composition; the same context and findings give the same bytes.

    `created` must be aware and is written as local time in its own zone, so pass `datetime.now().astimezone()` once and
    keep it: a retry that passes the kept value writes the same bytes. `device_uid` and `device_serial` name this
    installation. `configuration_digest` and `input_digest` (hex, any length) go into the derived UIDs.
    """

    created: datetime
    software_version: str
    device_uid: str
    device_serial: str
    predecessors: tuple[PredecessorRef, ...] = ()
    configuration_digest: str = ""
    input_digest: str = ""

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError(
                f"created is {self.created.isoformat()} without a time zone; pass an aware time such as "
                "datetime.now().astimezone()"
            )
