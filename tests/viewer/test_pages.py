"""What a person sees: the study list, heatmaps on the canvas, values of the report over the film, refusals, MR."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from pydicom import Dataset, dcmread

from dicom_templates import codes
from tests.viewer import mr_results
from tests.viewer.conftest import Viewer
from tests.viewer.ohif import Ohif, alike, film

MARK = "AI - RESEARCH: NOT FOR DIAGNOSIS"


def stored(viewer: Viewer, study: str) -> list[Dataset]:
    """Everything in a study, as Orthanc gives it out."""
    with requests.Session() as session:
        session.trust_env = False
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
        found = session.post(f"{viewer.url}/orthanc/tools/find", json=query).json()
        files = [session.get(f"{viewer.url}/orthanc/instances/{each}/file").content for each in found]
    return [dcmread(io.BytesIO(file)) for file in files]


def by_genu(viewer: Viewer, study: str, kind: str = "") -> list[Dataset]:
    """Genu's objects of a kind: "report", "heatmap", "card"."""
    found = [each for each in stored(viewer, study) if each.get("Manufacturer") == "Genu"]
    return [each for each in found if kind in each.SeriesDescription]


def study_of(viewer: Viewer, words: str) -> str:
    (found,) = [uid for uid, summary in viewer.studies.items() if words in summary and uid != mr_results.STUDY]
    return found


def source_of(viewer: Viewer, study: str) -> Path:
    files = sorted((viewer.folder.parent / "samples").rglob("*.dcm"))
    return next(file for file in files if dcmread(file, stop_before_pixels=True).StudyInstanceUID == study)


def groups(report: Dataset) -> Iterator[Dataset]:
    for part in report.ContentSequence:
        if part.ConceptNameCodeSequence[0].CodeValue == "126010":
            yield from part.ContentSequence


def item(group: Dataset, value: str) -> Dataset:
    return next(each for each in group.ContentSequence if each.ConceptNameCodeSequence[0].CodeValue == value)


def number(group: Dataset, value: str) -> str:
    return f"{float(item(group, value).MeasuredValueSequence[0].NumericValue):.2f}"


def expected_lines(group: Dataset) -> list[str]:
    """What the overlay has to say of a knee, from the report's own content items."""
    grade = item(group, codes.KL_GRADE.value).ConceptCodeSequence[0].CodeMeaning
    probabilities = [number(group, concept.value) for concept in codes.KL_PROBABILITIES]
    (kind,) = item(group, codes.MODEL_KIND.value).ConceptCodeSequence
    synthetic = kind.CodeValue == codes.MODEL_SYNTHETIC.value
    return [
        f"{item(group, '112039').TextValue}: {grade.replace('Kellgren-Lawrence grade', 'KL')}",
        f"P(KL 0-4): {' '.join(probabilities)}",
        f"Expected KL: {number(group, codes.KL_EXPECTED.value)}",
        *([f"Model: {kind.CodeMeaning}"] if synthetic else []),
        MARK,
    ]


def test_the_study_list_shows_the_samples(ohif: Ohif, viewer: Viewer) -> None:
    rows = ohif.list_studies()
    assert len(rows) == len(viewer.studies) == 6
    shown = [sorted(word.split("\\")) for row in rows for word in row.split() if word == "MR" or "\\" in word]
    kept = [sorted({str(each.Modality) for each in stored(viewer, study)}) for study in viewer.studies]
    assert sorted(shown) == sorted(kept)
    assert kept.count(["DX", "OT", "SR"]) >= 2 and ["MR"] in kept
    # The descriptions need a list in the query that Orthanc takes only after nginx decoded it.
    assert any("to be refused" in row for row in rows)
    assert any("nothing to score" in row for row in rows)
    assert ohif.page.get_by_text("for investigational use only").is_visible()


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_the_heatmap_of_each_knee_is_on_the_canvas(ohif: Ohif, viewer: Viewer, side: str) -> None:
    study = study_of(viewer, "Right knee")
    pictures = {each.SeriesDescription.split()[3]: each.pixel_array for each in by_genu(viewer, study, "heatmap")}
    assert set(pictures) == {"RIGHT", "LEFT"}
    other = pictures["LEFT" if side == "RIGHT" else "RIGHT"]
    ohif.open_study(study)
    ohif.open_series(f"heatmap {side} knee")
    seen = ohif.wait_for(pictures[side])
    assert alike(seen, pictures[side]) > alike(seen, other) + 0.05
    assert alike(seen, pictures[side]) > alike(seen, pictures[side][:, ::-1]) + 0.05
    # The heat is in colour: red above blue where the heatmap has it so.
    warm = pictures[side].astype(int)[..., 0] - pictures[side].astype(int)[..., 2]
    assert warm.max() > 150
    assert (seen.astype(int)[..., 0] - seen.astype(int)[..., 2]).max() > 130
    assert ohif.page.get_by_text("FPS").count() == 0  # no player over it


def test_the_report_of_both_knees_is_read_over_the_film(ohif: Ohif, viewer: Viewer) -> None:
    study = study_of(viewer, "Right knee")
    (report,) = by_genu(viewer, study, "report")
    ohif.open_study(study)
    ohif.open_series("Genu AI knee report")
    text = ohif.overlay("RIGHT knee") and ohif.overlay("LEFT knee")
    knees = list(groups(report))
    assert len(knees) == 2
    for group in knees:
        assert "\n".join(expected_lines(group)) in text
    ohif.wait_for(film(source_of(viewer, study)), 0.85)
    # Each text stands on its own side of the film, inside of the viewport: the right knee is seen at the left.
    left, top, right, bottom = ohif.canvas()
    boxes = ohif.boxes()
    for word, (start, end) in {"RIGHT": (left, (left + right) / 2), "LEFT": ((left + right) / 2, right)}.items():
        (box,) = [box for first, box in boxes.items() if first.startswith(word)]
        assert start <= box[0] < box[2] <= end and top <= box[1] < box[3] <= bottom
    assert ohif.page.get_by_text("continue tracking").count() == 0
    assert ohif.page.get_by_text("Skip all").count() == 0


def test_the_report_of_one_knee_is_read_over_the_film(ohif: Ohif, viewer: Viewer) -> None:
    (study,) = [uid for uid, summary in viewer.studies.items() if summary.startswith("Left knee")]
    (report,) = by_genu(viewer, study, "report")
    ohif.open_study(study)
    ohif.open_series("Genu AI knee report")
    (group,) = groups(report)
    assert ohif.overlay("LEFT knee").splitlines() == expected_lines(group)
    ohif.wait_for(film(source_of(viewer, study)), 0.85)


def test_a_refusal_says_why_over_the_film(ohif: Ohif, viewer: Viewer) -> None:
    study = study_of(viewer, "ViewPosition says LL")
    (report,) = by_genu(viewer, study, "report")
    assert not by_genu(viewer, study, "heatmap")
    ohif.open_study(study)
    ohif.open_series("Genu AI knee report")
    lines = ohif.overlay("not scored").splitlines()
    assert lines[0] == "Image not scored: No frontal view"
    assert lines[-1] == MARK
    reason = " ".join(line.partition(": ")[2] for line in lines[1:-1])
    (group,) = groups(report)
    assert item(group, codes.REFUSAL_TEXT.value).TextValue.endswith(reason)
    assert "ViewPosition says LL" in reason
    seen = ohif.wait_for(film(source_of(viewer, study)), 0.85)
    assert np.percentile(seen, 90) > 60  # not black


@pytest.mark.parametrize("words", ["ViewPosition says LL", "Rows (0)"])
def test_the_card_of_a_refusal_is_on_the_canvas(ohif: Ohif, viewer: Viewer, words: str) -> None:
    study = study_of(viewer, words)
    (card,) = by_genu(viewer, study, "card")
    ohif.open_study(study)
    ohif.open_series("refusal card")
    seen = ohif.wait_for(card.pixel_array)
    assert alike(seen, card.pixel_array) > alike(seen, card.pixel_array[:, ::-1]) + 0.05


def test_a_refusal_without_an_image_is_shown_as_text(ohif: Ohif, viewer: Viewer) -> None:
    study = study_of(viewer, "Rows (0)")
    ohif.open_study(study)
    ohif.open_series("Genu AI knee report")
    text = ohif.page.get_by_text("Pixel data cannot be decoded: Rows (0) and Columns (0) do not describe an image.")
    text.wait_for()
    assert ohif.page.get_by_text("AI - RESEARCH - NOT FOR DIAGNOSIS").is_visible()


def test_a_study_with_nothing_to_score_opens_and_has_no_report(ohif: Ohif, viewer: Viewer) -> None:
    study = study_of(viewer, "Nothing to score")
    assert by_genu(viewer, study) == []
    ohif.open_study(study)
    ohif.wait_for(film(source_of(viewer, study)))
    (series,) = ohif.thumbnails()
    assert series.startswith("MR") and series.endswith("12")


def test_orthanc_explorer_has_genus_button(ohif: Ohif, viewer: Viewer) -> None:
    study = study_of(viewer, "ViewPosition says LL")
    with requests.Session() as session:
        session.trust_env = False
        query = {"Level": "Study", "Query": {"StudyInstanceUID": study}}
        (identifier,) = session.post(f"{viewer.url}/orthanc/tools/find", json=query).json()
    ohif.page.goto(f"{viewer.url}/orthanc/app/explorer.html#study?uuid={identifier}")
    ohif.page.get_by_text("ViewPosition says LL").wait_for()
    assert ohif.page.get_by_text("Score with Genu").is_visible()
