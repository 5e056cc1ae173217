"""Under which circumstances a result is made: what the derived UIDs and the equipment of our objects rest on.

Used by the worker and by `genu score`, so that both make the same objects of the same inputs. No torch.
"""

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version

from dicom_templates.compose import PredecessorRef, ReportContext
from dicom_templates.identity import lasting_uid
from plugin.rows import Predecessor
from plugin.settings import Settings, Station


def report_context(
    settings: Settings,
    *,
    created: datetime,
    inputs: Iterable[tuple[str, str]],
    accept_secondary_capture: bool = False,
    predecessor: Predecessor | None = None,
) -> ReportContext:
    """The context of one report. `inputs` are SOP Instance UIDs with the SHA-256 of their files, in any order."""
    before = () if predecessor is None else (_reference(predecessor),)
    return ReportContext(
        created=created,
        software_version=version("genu"),
        device_uid=device_uid(settings.station),
        device_serial=settings.station.device_serial,
        predecessors=before,
        configuration_digest=_digest([f"accept_secondary_capture={accept_secondary_capture}"]),
        input_digest=_digest(sorted(f"{uid} {digest}" for uid, digest in inputs)),
    )


def device_uid(station: Station) -> str:
    """The Device UID of this installation: as configured, else derived from its serial number."""
    return station.device_uid or str(lasting_uid("observer", station.device_serial))


def _reference(predecessor: Predecessor) -> PredecessorRef:
    return PredecessorRef(
        study_uid=predecessor.study_uid,
        series_uid=predecessor.series_uid,
        sop_class_uid=predecessor.sop_class_uid,
        sop_instance_uid=predecessor.sop_instance_uid,
    )


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode("utf-8")).hexdigest()
