"""The files of a claimed study: those that we received, and those that Orthanc keeps, fetched for as long as it takes.

Of a series that holds no radiograph one instance is fetched: enough to say what it is, without its hundreds of slices.
MR series are fetched whole where a bundle for knee MRI serves.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Protocol, TypeVar

from inference.errors import ConfigurationError, ResourceError
from inference.installed import reads_mr
from plugin.orthanc_api import OrthancApi
from plugin.rows import Claim, Input
from plugin.settings import Settings
from plugin.web import Downloaded, WebError

FETCHED = "fetched"
# Modalities (PS3.3 C.7.3.1.1.1) whose series hold no radiograph, whatever their SOP class.
WITHOUT_RADIOGRAPHS = frozenset(
    {"AU", "BI", "CT", "DOC", "ECG", "EPS", "ES", "FID", "HD", "IVUS", "KO", "LP", "M3D", "MG", "MR", "NM", "OAM"}
    | {"OCT", "OP", "OPT", "OPV", "OSS", "PLAN", "PR", "PT", "PX", "REG", "RESP", "RTDOSE", "RTIMAGE", "RTPLAN"}
    | {"RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "STAIN", "TG", "US", "XC"}
)
MR = "MR"
MOST_SLICES = (
    2000  # of an MR series that is fetched whole; one of more is no series of a knee, but a film of a heart, say
)


@dataclass(frozen=True)
class InputFile:
    """One instance on our disk, and the SHA-256 of what its sender gave us."""

    path: Path
    sop_uid: str
    sha256: str
    is_new: bool


class InSeries(Protocol):
    """An instance of which series and modality are known; the modality is empty where it is not."""

    @property
    def series_uid(self) -> str:
        """Its Series Instance UID."""

    @property
    def modality(self) -> str:
        """Modality (0008,0060)."""


T = TypeVar("T", bound=InSeries)


class Fetcher:
    """Puts the inputs of a claim on disk; keeps one session with Orthanc."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the manifest of a configured bundle cannot be read."""
        self._settings = settings
        self.whole_mr = reads_mr(settings.bundles)
        self._api: OrthancApi | None = None

    @contextmanager
    def files(self, claim: Claim) -> Iterator[Sequence[InputFile]]:
        """What there is of the study, in the order of its inputs; an instance deleted in the meantime is left out.

        Raises ResourceError when our disk fails, WebError when Orthanc does, ConfigurationError without one.
        """
        with self._folder(claim) as folder:
            found = [self._file(item, folder / f"{number}.dcm") for number, item in enumerate(self._wanted(claim))]
            yield tuple(file for file in found if file is not None)

    def gone(self, claim: Claim, files: Sequence[InputFile]) -> list[str]:
        """The identifiers of those that Orthanc was asked for and has no more."""
        found = {file.sop_uid for file in files}
        return [item.remote for item in self._wanted(claim) if item.remote is not None and item.sop_uid not in found]

    def _wanted(self, claim: Claim) -> list[Input]:
        return wanted(claim.inputs, whole_mr=self.whole_mr)

    def _file(self, item: Input, target: Path) -> InputFile | None:
        if item.remote is not None:
            fetched = self._fetch(item.remote, target)
            return InputFile(target, item.sop_uid, fetched.sha256, item.is_new) if fetched else None
        path = self._settings.data_dir.joinpath(item.relative_path or "")
        _require_readable(path)
        return InputFile(path, item.sop_uid, item.sha256 or "", item.is_new)

    def _fetch(self, remote: str, target: Path) -> Downloaded | None:
        try:
            with target.open("wb") as stream:
                return self._orthanc().download(remote, stream, self._settings.listener.max_instance_bytes)
        except OSError as error:
            raise ResourceError(f"cannot write to {target}: {error.strerror}; check the disk under data_dir") from error
        except WebError as error:
            if error.is_missing:
                return None
            raise

    def _orthanc(self) -> OrthancApi:
        if self._settings.orthanc is None:
            raise ConfigurationError("this study lies in Orthanc, and no Orthanc is configured: set `orthanc`")
        if self._api is None:
            self._api = OrthancApi(self._settings.orthanc)
        return self._api

    @contextmanager
    def _folder(self, claim: Claim) -> Iterator[Path]:
        """A folder for this attempt alone, gone afterwards; not made when every file is ours."""
        folder = self._settings.data_dir / FETCHED / f"{claim.job_id}-{claim.token}"
        if all(item.remote is None for item in claim.inputs):
            yield folder
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"cannot make {folder}: {error.strerror}; check the disk under data_dir") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def wanted(inputs: Sequence[Input], *, whole_mr: bool = False) -> list[Input]:
    """What of a claim is fetched. What made its revision is among it, and scoring again finds the same."""
    return one_of_each(inputs, lambda item: item.revision, whole_mr=whole_mr)


def one_of_each(
    items: Sequence[T], newness: Callable[[T], int] = lambda _item: 0, *, whole_mr: bool = False
) -> list[T]:
    """Every instance, but of a series without radiographs only one: the first of the newest.

    With `whole_mr` MR series of up to MOST_SLICES instances are whole, too.
    """
    slices = Counter(item.series_uid for item in items if item.modality.upper() == MR)
    whole = {series for series, count in slices.items() if whole_mr and count <= MOST_SLICES}
    enough: dict[str, T] = {}
    single = [item.modality.upper() in WITHOUT_RADIOGRAPHS and item.series_uid not in whole for item in items]
    for item in compress(items, single):
        known = enough.setdefault(item.series_uid, item)
        if newness(item) > newness(known):
            enough[item.series_uid] = item
    return [item for item, one in zip(items, single, strict=True) if not one or enough[item.series_uid] is item]


def drop_leftovers(data_dir: Path) -> None:
    """Remove what killed workers had fetched; to be called when none runs."""
    shutil.rmtree(data_dir / FETCHED, ignore_errors=True)


def _require_readable(path: Path) -> None:
    """A file that we confirmed and cannot open is a fault of our disk: no refusal, which would blame the sender."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise ResourceError(
            f"the received file {path} cannot be opened ({error.strerror}): mend the disk or restore the "
            "file, then `genu retry`"
        ) from error
