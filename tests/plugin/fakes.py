"""A light stand-in for the predictor, and small films: the worker's loop, its reading and writing are the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset

from inference.findings import Box, KLFinding, KneeFinding, ModelIdentity, Saliency, Side, SourceImage, StudyFindings
from inference.reading import Instance, StudyInput
from plugin.jobs import Queue
from plugin.rows import ReceivedInstance
from tests.phantoms import wrap_dx
from tests.plugin.queue_helpers import DX

MODEL = ModelIdentity(name="genu-fake", version="0", task="kl", device_uid="2.25.42", digest="ab" * 32, synthetic=True)


class FakeScorer:
    """Finds grade 2 on every DX image; `before` is called with each study first, to break things."""

    def __init__(self, before: Callable[[StudyInput], None] | None = None) -> None:
        self._before = before
        self.scored: list[str] = []

    def score(self, study: StudyInput, *, accept_secondary_capture: bool = False) -> StudyFindings:
        if self._before is not None:
            self._before(study)
        self.scored.append(study.study_instance_uid)
        images = [instance for instance in study.instances if instance.sop_class_uid == DX]
        sources = tuple(_source(instance) for instance in images)
        return StudyFindings(
            study_instance_uid=study.study_instance_uid,
            knees=tuple(_knee(source) for source in sources),
            refusals=study.unreadable,
            radiographs=len(images) + len(study.unreadable),
            models=(MODEL,),
            looked_at=sources,
            renderings={
                source.sop_instance_uid: np.zeros((source.rows, source.columns), np.uint8) for source in sources
            },
        )


def film(study: int, number: int = 1, *, size: int = 32) -> Dataset:
    """A small DX film; the same arguments make the same bytes."""
    pixels = np.add.outer(np.arange(size), np.arange(size) + study + number).astype(np.float32)
    dataset = wrap_dx(pixels / pixels.max(), "L", identity=f"fake-{study}")
    dataset.SOPInstanceUID = f"{dataset.StudyInstanceUID[:50]}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    return dataset


def deposit(queue: Queue, dataset: Dataset, at: float, *, broken: bytes | None = None) -> Path:
    """What the listener does: the file below data_dir, then its row."""
    relative = f"instances/{dataset.SOPInstanceUID[-40:]}.dcm"
    path = queue.settings.data_dir / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    if broken is None:
        dataset.save_as(path, enforce_file_format=True)
    else:
        path.write_bytes(broken)
    assert queue.admit(
        ReceivedInstance(
            study_uid=dataset.StudyInstanceUID,
            series_uid=dataset.SeriesInstanceUID,
            sop_uid=dataset.SOPInstanceUID,
            sop_class_uid=dataset.SOPClassUID,
            transfer_syntax=dataset.file_meta.TransferSyntaxUID,
            relative_path=relative,
            size=path.stat().st_size,
            sha256="0" * 64,
            calling_ae="XR",
            peer_host="127.0.0.1",
            received_at=at,
        )
    )
    return path


def _source(instance: Instance) -> SourceImage:
    return SourceImage(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        rows=int(instance.header.Rows),
        columns=int(instance.header.Columns),
    )


def _knee(source: SourceImage) -> KneeFinding:
    box = Box(0, 0, source.columns, source.rows)
    return KneeFinding(
        side=Side.LEFT,
        source=source,
        box=box,
        kl=KLFinding(2, (0.1, 0.2, 0.4, 0.2, 0.1), 2.0),
        model=MODEL,
        saliency=Saliency(np.eye(4, dtype=np.float32), box),
    )
