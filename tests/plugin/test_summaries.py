"""One sentence for each state of a study."""

import json
from typing import Any

import pytest

from dicom_templates.codes import MODEL_SYNTHETIC
from plugin import summaries
from plugin.rows import JobRow, JobState


def job(state: JobState, *, error: str | None = None, result: dict[str, Any] | None = None) -> JobRow:
    return JobRow(1, "1.2", 1, state, None, 1, 0.0, None, error, json.dumps(result) if result else None)


def line(status: str, knees: list[tuple[str, int]] = [], refusals: list[tuple[str, str, str]] = []) -> dict[str, Any]:  # noqa: B006
    return {
        "status": status,
        "knees": [{"side": side, "kl": {"grade": grade}} for side, grade in knees],
        "refusals": [
            {"code": code, "reason": reason, **({"side": side} if side else {})} for code, reason, side in refusals
        ],
    }


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "Genu has not looked at this study"),
        (job(JobState.QUEUED), "Waits to be scored."),
        (job(JobState.QUEUED, error="nobody answers"), "Waits for its next attempt: nobody answers"),
        (job(JobState.RUNNING), "Being scored."),
        (job(JobState.DEAD, error="broken"), "Given up: broken"),
        (
            job(JobState.DONE, result=line("scored", [("R", 3), ("L", 0)])),
            "Right knee: Kellgren-Lawrence grade 3; left knee: Kellgren-Lawrence grade 0 (research only).",
        ),
        (
            job(JobState.DONE, result=line("scored", [("R", 2)], [("no_knee_found", "No knee there.", "L")])),
            "Right knee: Kellgren-Lawrence grade 2 (research only). Left knee, no knee found in pixels: No knee there.",
        ),
        (
            job(JobState.DONE, result=line("refused", [], [("no_frontal_view", "A lateral view.", "")])),
            "Refused. No frontal view: A lateral view.",
        ),
        (
            job(JobState.DONE, result=line("nothing_to_score", [], [("unsupported_sop_class", "MR.", "")])),
            "Nothing to score. SOP class not supported: MR.",
        ),
    ],
)
def test_sentences(found: JobRow | None, sentence: str) -> None:
    assert summaries.of_job(found).startswith(sentence)


@pytest.mark.parametrize(
    ("grader", "pain", "marked"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_a_stand_in_behind_grade_or_pain_is_named(grader: bool, pain: bool, marked: bool) -> None:
    found = line("scored", [("R", 3)])
    told = {"score": 4.0, "low": 2.0, "high": 6.0, "coverage": 0.9, "origin": "predicted from image"}
    found["knees"][0] |= {"model": {"synthetic": grader}, "pain": {**told, "model": {"synthetic": pain}}}
    assert ("SYNTHETIC" in summaries.of_result(found)) is marked


def volume(side: str = "L", **changes: Any) -> dict[str, Any]:
    return {
        "side": side,
        "sequence": "coronal IW TSE",
        "classes": ["no progression", "progression of 0.5 mm or more"],
        "probabilities": [0.63, 0.37],
        "low": [0.57, 0.27],
        "high": [0.73, 0.43],
        "origin": "predicted from image, not measured",
        "model": {"synthetic": False},
        **changes,
    }


def test_what_is_predicted_from_mr_stands_behind_the_grades() -> None:
    found = line("scored", [("R", 3)], [("wrong_plane", "Sagittal.", "R")]) | {"volumes": [volume()]}
    assert summaries.of_result(found) == (
        "Right knee: Kellgren-Lawrence grade 3; left knee, coronal IW TSE: probability 0.37 (0.27 to 0.43) of "
        "progression of 0.5 mm or more, predicted from image, not measured (research only). Right knee, wrong plane: "
        "Sagittal."
    )
    pain = {"classes": ["no pain", "some pain", "much pain"], "probabilities": [0.5, 0.3, 0.2], "low": [0.4, 0.2, 0.1]}
    found = line("scored") | {"volumes": [volume(**pain, high=[0.6, 0.4, 0.3], model={"synthetic": True})]}
    assert summaries.of_result(found) == (
        "Left knee, coronal IW TSE: probabilities: no pain 0.50, some pain 0.30, much pain 0.20, predicted from image, "
        f"not measured ({MODEL_SYNTHETIC.meaning}; research only)."
    )
