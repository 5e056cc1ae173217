"""Result objects on our disk: named by our derived UIDs, durable before the queue hears of them."""

import os
import shutil
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite

from dicom_templates.compose import Composed
from inference.errors import ResourceError
from plugin.destinations import fsync_folder
from plugin.rows import Claim, ObjectKind, ResultObject

RESULTS = "results"


def results_folder(data_dir: Path, claim: Claim) -> Path:
    """The folder of one attempt. The fencing token in its name keeps a worker that lost its lease out of the next's."""
    return data_dir / RESULTS / f"{claim.job_id}-{claim.token}"


def write_results(composed: Composed, data_dir: Path, claim: Claim) -> tuple[ResultObject, ...]:
    """Write and fsync all objects, the report last. Raises ResourceError when the disk does not take them."""
    kinds = [(ObjectKind.HEATMAP, heatmap) for heatmap in composed.heatmaps]
    kinds += [(ObjectKind.HEATMAP, picture) for picture in composed.volumes]
    kinds += [(ObjectKind.CARD, card) for card in composed.cards]
    if composed.report is not None:
        kinds.append((ObjectKind.REPORT, composed.report))
    if not kinds:
        return ()
    folder = results_folder(data_dir, claim)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = tuple(_write(kind, dataset, folder, data_dir) for kind, dataset in kinds)
        for made in (folder, folder.parent, data_dir):
            fsync_folder(made)
    except OSError as error:
        raise ResourceError(f"cannot write results below {folder}: {error.strerror}; check the disk") from error
    return written


def drop_results(data_dir: Path, claim: Claim) -> None:
    """Remove what this attempt wrote: its lease was lost, another attempt writes its own."""
    shutil.rmtree(results_folder(data_dir, claim), ignore_errors=True)


def drop_earlier_attempts(data_dir: Path, claim: Claim) -> None:
    """Remove what earlier attempts at this job left behind: the queue points at the files of `claim`."""
    for folder in (data_dir / RESULTS).glob(f"{claim.job_id}-*"):
        token = folder.name.rpartition("-")[2]
        if token.isdigit() and int(token) < claim.token:
            shutil.rmtree(folder, ignore_errors=True)


def _write(kind: ObjectKind, dataset: Dataset, folder: Path, data_dir: Path) -> ResultObject:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    content = buffer.getvalue()
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return ResultObject(
        kind=kind,
        series_uid=str(dataset.SeriesInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        sop_uid=str(dataset.SOPInstanceUID),
        relative_path=path.relative_to(data_dir).as_posix(),
        size=len(content),
        sha256=sha256(content).hexdigest(),
    )
