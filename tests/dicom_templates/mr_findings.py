"""Knee MRI results made by hand, on the series of `tests.mr_phantoms`: nothing real."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.findings import Box, Evidence, ModelIdentity, Refusal, Saliency, Side, SourceImage, StudyFindings
from inference.mr_findings import ClinicalValue, OutcomeFinding, SeenSlice, VolumeFinding
from inference.mr_findings import Grid as Geometry
from tests.dicom_templates.factory import bump, reread
from tests.mr_phantoms import Grid, mr_series, sampled
from tests.phantoms import MR

PROGRESSION = ModelIdentity(
    name="genu-jsn",
    version="0.1.0",
    task="jsn_progression",
    device_uid="2.25.411",
    digest="4a" * 32,
    parameters="target=progression_abs; sequence=cor_iw_tse; threshold=0.4000",
)
PAIN = replace(
    PROGRESSION,
    name="genu-womac",
    task="womac_pain",
    device_uid="2.25.412",
    digest="5b" * 32,
    parameters="target=womac_pain_class; sequence=cor_iw_tse",
)
STAND_IN = replace(PROGRESSION, version="0.0.0", device_uid="2.25.413", digest="6c" * 32, synthetic=True)
KNOWN = (ClinicalValue("age", 63.0, "PatientAge"), ClinicalValue("sex", 1.0, "PatientSex"))
IMPUTED = (ClinicalValue("mjsw", 4.1, None),)
STUDY = "mr"


def progression(model: ModelIdentity = PROGRESSION, value: float = 0.62, **changes: Any) -> OutcomeFinding:
    """Absolute progression, above its threshold."""
    values: dict[str, Any] = {
        "target": "progression_abs",
        "classes": ("no progression", "progression of 0.5 mm or more"),
        "probabilities": (1 - value, value),
        "low": (0.2, 0.41),
        "high": (0.59, 0.8),
        "method": "Venn-Abers, by patient",
        "threshold": 0.4,
        "clinical": (*KNOWN, *IMPUTED),
        "model": model,
        **changes,
    }
    return OutcomeFinding(**values)


def pain_classes(model: ModelIdentity = PAIN) -> OutcomeFinding:
    """Three classes of WOMAC pain, without a threshold."""
    return progression(
        model,
        target="womac_pain_class",
        classes=("no pain", "some pain", "much pain"),
        probabilities=(0.2, 0.3, 0.5),
        low=(0.1, 0.2, 0.35),
        high=(0.3, 0.45, 0.65),
        threshold=None,
    )


def series(side: Side = Side.LEFT, grid: Grid | None = None, **options: Any) -> list[Dataset]:
    """The series of a knee as it comes from files, both knees in one study; options as `mr_series` has them."""
    made = mr_series(side.value, grid, identity=f"{STUDY}-{side.value}", **options)
    for header in made:
        header.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{len(STUDY)}"
        header.PatientName, header.PatientID = "Phantom^MR", "PHANTOM-MR"
        header.PatientAge, header.AccessionNumber = "063Y", "A2"
        header.PatientSex, header.PatientBirthDate = "F", "19600102"
    return [reread(header) for header in made]


def volume(
    headers: Sequence[Dataset],
    side: Side = Side.LEFT,
    grid: Grid | None = None,
    *,
    outcome: OutcomeFinding | None = None,
    read: Sequence[int] | None = None,
    saliency: npt.NDArray[np.float32] | None = None,
    box: Box | None = None,
    sequence: str = "coronal IW TSE",
) -> VolumeFinding:
    """What a model found on a series; the second slice read has the highest saliency. `read`: indices of slices."""
    grid = grid or Grid()
    indices = tuple(range(2, 10)) if read is None else tuple(read)
    place = box or Box(0.0, 0.0, float(grid.columns), float(grid.rows))
    heat = bump(0.3, 0.45) if saliency is None else saliency
    pixels, (across, down) = sampled(grid, side.value), grid.directions
    peak = 1 if len(indices) > 1 else 0
    shares = np.linspace(1.0, 2.0, len(indices)) / np.linspace(1.0, 2.0, len(indices)).sum()
    slices = tuple(
        SeenSlice(
            source=source_of(headers, index),
            index=index,
            position=_vector(grid.positions()[index]),
            attention=float(shares[number]),
            saliency=Saliency(heat if number == peak else 0.5 * heat, place),
            rendering=np.clip(pixels[index] / 6, 0, 255).astype(np.uint8),
        )
        for number, index in enumerate(indices)
    )
    return VolumeFinding(
        side=side,
        series_instance_uid=str(headers[0].SeriesInstanceUID),
        sequence=sequence,
        chosen_by="description",
        outcome=outcome or progression(),
        slices=slices,
        total=grid.slices,
        grid=Geometry(
            _vector(across),
            _vector(down),
            _vector(np.cross(across, down) * grid.step_mm),
            grid.row_mm,
            grid.column_mm,
        ),
        peak=peak,
        region=Box(0.2 * grid.columns, 0.3 * grid.rows, 0.5 * grid.columns, 0.6 * grid.rows),
        evidence=(
            Evidence("anatomy", "BodyPartExamined", "KNEE", "knee"),
            Evidence("slices", "number of slices", str(grid.slices), "a volume"),
            Evidence("plane", "ImageOrientationPatient", grid.plane, grid.plane),
            Evidence("sequence", "SeriesDescription", '"iw tse"', "iw tse"),
            Evidence("side", "Laterality", side.value, side.value),
        ),
    )


def source_of(headers: Sequence[Dataset], index: int) -> SourceImage:
    """The image of a slice; of a multi-frame object the frame that holds it."""
    first = headers[0]
    size = (int(first.Rows), int(first.Columns))
    if len(headers) == 1 and "PerFrameFunctionalGroupsSequence" in first:
        frames = first.PerFrameFunctionalGroupsSequence
        places = [int(frame.FrameContentSequence[0].InStackPositionNumber) for frame in frames]
        return SourceImage(
            first.SOPClassUID, first.SOPInstanceUID, first.SeriesInstanceUID, *size, places.index(index + 1) + 1
        )
    return SourceImage(MR, headers[index].SOPInstanceUID, first.SeriesInstanceUID, *size)


def study(
    volumes: Sequence[VolumeFinding] = (),
    refusals: Sequence[Refusal] = (),
    headers: Sequence[Dataset] = (),
    models: Sequence[ModelIdentity] | None = None,
) -> StudyFindings:
    """The findings of a study of MR images only; `headers` are all that were looked at."""
    sources = [
        SourceImage(h.SOPClassUID, h.SOPInstanceUID, h.SeriesInstanceUID, int(h.Rows), int(h.Columns)) for h in headers
    ]
    spoke = tuple(dict.fromkeys(one.model for one in volumes)) if models is None else tuple(models)
    return StudyFindings(
        study_instance_uid=str(headers[0].StudyInstanceUID),
        volumes=tuple(volumes),
        refusals=tuple(refusals),
        mr_images=len(sources),
        models=spoke,
        looked_at=tuple(sources),
    )


def _vector(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
