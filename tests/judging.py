"""Selection asked about one object in memory, for the tests of inference.studies and of what it asks."""

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset

from inference.reading import Instance, StudyInput
from inference.studies import Selection, select
from tests import phantoms


def judged(ds: Dataset, **options: bool) -> Selection:
    """Selection of one object as it is in memory."""
    ds.file_meta = getattr(ds, "file_meta", FileMetaDataset())
    uids = (str(ds.SOPInstanceUID), str(ds.SOPClassUID), str(ds.SeriesInstanceUID), str(ds.StudyInstanceUID))
    return select(StudyInput(uids[3], (Instance(Path("x"), ds, *uids, "1.2.840.10008.1.2.1"),)), **options)


def outcome(ds: Dataset, **options: bool) -> Any:
    """What the only candidate's header states (a side, BOTH or None), or the code of the only refusal."""
    found = judged(ds, **options)
    assert len(found.candidates) + len(found.refusals) == 1
    return found.candidates[0].stating.side if found.candidates else found.refusals[0].code


def bare(**attributes: Any) -> Dataset:
    """A DX that says nothing but what is given."""
    spoken = "AnatomicRegionSequence ViewCodeSequence BodyPartExamined ViewPosition ImageLaterality StudyDescription"
    silent = dict.fromkeys((*spoken.split(), "SeriesDescription", "PatientOrientation"))
    return phantoms.dx_knee("L", attributes=silent | attributes)
