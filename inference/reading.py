"""Files and folders in, whole studies out: what a worker has for one study, and what `genu score` finds in a folder."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference.decoding import read_dataset
from inference.errors import UnreadableError
from inference.findings import Refusal, RefusalCode
from inference.instances import Instance, read_instance
from inference.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "Grouping",
    "Instance",
    "Limits",
    "StudyInput",
    "group_studies",
    "read_dataset",
    "read_instance",
    "read_study",
]

# The first element of a data set without a preamble: group 2 or 8, element below 0x100, in either byte order.
_DICOM_PREFIX = re.compile(rb"[\x02\x08]\x00.\x00|\x00\x08\x00.", re.DOTALL)
_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})


@dataclass(frozen=True, eq=False)
class StudyInput:
    """All that is known of one study: instances sorted by SOP Instance UID, each once, and what could not be read.

    `unreadable_paths` names the files behind `unreadable`, in the same order, for the person at the command line only:
    paths may carry names and must not go into reports or logs.
    """

    study_instance_uid: str
    instances: tuple[Instance, ...] = ()
    unreadable: tuple[Refusal, ...] = ()
    unreadable_paths: tuple[Path, ...] = ()


@dataclass
class Grouping:
    """What `group_studies` met besides studies: counted, not named."""

    files: int = 0
    skipped: int = 0
    broken: list[tuple[Path, Refusal]] = field(default_factory=list)


def read_study(
    paths: Iterable[Path], limits: Limits = DEFAULT_LIMITS, study_instance_uid: str | None = None
) -> StudyInput:
    """All files of one study.

    With `study_instance_uid` (what the sender said) a file of another study is refused; without it the first instance
    in the order of SOP Instance UIDs decides. Raises nothing but ResourceError.
    """
    instances: list[Instance] = []
    refusals: list[tuple[Path, Refusal]] = []
    for path in paths:
        try:
            instances.append(read_instance(path, limits))
        except UnreadableError as error:
            refusals.append((path, error.refusal))
    instances.sort(key=lambda instance: (instance.sop_instance_uid, str(instance.path)))
    if study_instance_uid is None:
        study_instance_uid = instances[0].study_instance_uid if instances else ""
    own = []
    for instance in instances:
        if instance.study_instance_uid == study_instance_uid:
            own.append(instance)
        else:
            reason = "StudyInstanceUID differs from that of the study it came with. Send it under its own study."
            refusal = Refusal(RefusalCode.IDENTITY_CONTRADICTORY, reason, source=instance.sop_instance_uid)
            refusals.append((instance.path, refusal))
    return _study(study_instance_uid, own, refusals)


def group_studies(
    paths_or_folders: Sequence[Path],
    limits: Limits = DEFAULT_LIMITS,
    on_progress: Callable[[int], None] | None = None,
    grouping: Grouping | None = None,
) -> list[StudyInput]:
    """The studies in files and folders, sorted by Study Instance UID.

    Folders are walked without following links to folders; in them DICOMDIR and files that do not look like DICOM are
    skipped and counted in `grouping`. What was given by name, or looks like DICOM, and cannot be read, comes last as a
    study with an empty UID. `on_progress` is called with the number of files looked at. Raises ResourceError.
    """
    seen = grouping if grouping is not None else Grouping()
    studies: dict[str, list[Instance]] = {}
    for path, named in _files(paths_or_folders):
        seen.files += 1
        if not named and not _looks_like_dicom(path):
            seen.skipped += 1
        else:
            try:
                instance = read_instance(path, limits)
                studies.setdefault(instance.study_instance_uid, []).append(instance)
            except UnreadableError as error:
                seen.broken.append((path, error.refusal))
        if on_progress is not None:
            on_progress(seen.files)
    found = []
    for uid, instances in sorted(studies.items()):
        instances.sort(key=lambda instance: (instance.sop_instance_uid, str(instance.path)))
        found.append(_study(uid, instances, []))
    if seen.broken:
        found.append(_study("", [], seen.broken))
    return found


def _study(uid: str, instances: Iterable[Instance], broken: Sequence[tuple[Path, Refusal]]) -> StudyInput:
    """Each instance once; a copy that is left out may still name another patient."""
    found = tuple(instances)
    once: dict[str, Instance] = {}
    for instance in found:
        once.setdefault(instance.sop_instance_uid, instance)
    study = StudyInput(uid, tuple(once.values()), tuple(r for _, r in broken), tuple(p for p, _ in broken))
    contradiction = _identity_contradiction(found)
    if contradiction is None:
        return study
    return replace(study, unreadable=(*study.unreadable, contradiction))


def _identity_contradiction(instances: Sequence[Instance]) -> Refusal | None:
    """Two patients in one study: neither Patient ID nor Patient's Birth Date may differ where both are given."""
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate"):
        values = {text for i in instances if (text := str(i.header.get(keyword) or "").strip())}
        if len(values) > 1:
            reason = f"{keyword} differs between images of one study. Correct the identity at the source and resend."
            return Refusal(RefusalCode.IDENTITY_CONTRADICTORY, reason)
    return None


def _files(paths_or_folders: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Every file once, in a stable order, and whether it was given by name."""
    met: set[str] = set()
    for given in paths_or_folders:
        if not given.is_dir():
            if (key := os.path.realpath(given)) not in met:
                met.add(key)
                yield given, True
            continue
        closed: list[OSError] = []
        for folder, subfolders, names in os.walk(given, onerror=closed.append):
            subfolders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if (key := os.path.realpath(path)) not in met:
                    met.add(key)
                    yield path, False
        # A folder that may not be read is told as a file that cannot be opened.
        yield from ((Path(error.filename), True) for error in closed)


def _looks_like_dicom(path: Path) -> bool:
    """A preamble, a data set without one, or a name that claims it; never blocks on special files."""
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in _DICOM_SUFFIXES:
        return True  # let read_instance say what is wrong with it
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return True  # let read_instance say why
    return start[128:] == b"DICM" or start[:4] == b"DICM" or _DICOM_PREFIX.match(start) is not None
