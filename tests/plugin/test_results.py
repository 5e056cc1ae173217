"""The line of results.jsonl keeps its contract: the schema, the code's word list and what is written agree."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from inference.findings import (
    Box,
    FilmLook,
    KLFinding,
    KneeFinding,
    ModelIdentity,
    Refusal,
    RefusalCode,
    Saliency,
    SeenKnee,
    SeenLetter,
    Side,
    SourceImage,
    Spacing,
    Step,
    StudyFindings,
    StudyStatus,
)
from plugin.results import encode, failed_line, result_line, schema

VALIDATOR = jsonschema.Draft202012Validator(schema())
MODEL = ModelIdentity("genu-kl", "1", "kl", "2.25.9", "ab" * 32)
SOURCE = SourceImage("1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4", "1.2.3", 224, 448)
REFUSAL = Refusal(RefusalCode.SIDE_UNKNOWN, "Nothing says which knee this is.", source="1.2.3.5", side=None)


def knee(side: Side = Side.LEFT, **kl: object) -> KneeFinding:
    finding = KLFinding(grade=2, probabilities=(0.1, 0.2, 0.4, 0.2, 0.1), expected=2.0, **kl)  # type: ignore[arg-type]
    box = Box(0.0, 0.0, 224.0, 224.0)
    return KneeFinding(side, SOURCE, box, finding, MODEL, Saliency(np.zeros((7, 7), np.float32), box))


def test_a_scored_knee_has_the_keys_of_the_contract() -> None:
    findings = StudyFindings("1.2", knees=(knee(), knee(Side.RIGHT)), refusals=(REFUSAL,), radiographs=2)
    line = result_line(findings, ["2.25.1.dcm", "2.25.2.dcm"])
    VALIDATOR.validate(line)
    assert list(line) == ["study", "status", "knees", "volumes", "refusals", "looks", "files"]
    assert line["knees"][0] == line["knees"][0] | {
        "side": "L",
        "source": "1.2.3.4",
        "kl": {"grade": 2, "probabilities": [0.1, 0.2, 0.4, 0.2, 0.1]},
    }
    assert line["refusals"] == [
        {"code": "side_unknown", "reason": "Nothing says which knee this is.", "source": "1.2.3.5"}
    ]
    assert line["status"] == "scored"


def test_the_conformal_set_appears_only_when_there_is_one() -> None:
    findings = StudyFindings("1.2", knees=(knee(conformal_set=(1, 2, 3), coverage=0.9),), radiographs=1)
    line = result_line(findings)
    VALIDATOR.validate(line)
    assert line["knees"][0]["kl"]["set"] == [1, 2, 3]
    assert line["knees"][0]["kl"]["coverage"] == 0.9
    without = result_line(StudyFindings("1.2", knees=(knee(),), radiographs=1))["knees"][0]["kl"]
    assert not {"set", "coverage"} & set(without)


@pytest.mark.parametrize(
    ("spacing", "written"),
    [
        (None, None),
        (Spacing("none", None, None, ""), {"kind": "none", "source": ""}),
        (
            Spacing("detector", 0.143, 0.2, "ImagerPixelSpacing"),
            {"kind": "detector", "source": "ImagerPixelSpacing"},
        ),
        (
            Spacing("calibrated", 0.143, 0.2, "PixelSpacing, FIDUCIAL"),
            {"kind": "calibrated", "source": "PixelSpacing, FIDUCIAL", "rows_mm": 0.143, "columns_mm": 0.2},
        ),
    ],
)
def test_the_pixel_spacing_stands_beside_the_box(spacing: Spacing | None, written: object) -> None:
    line = result_line(StudyFindings("1.2", knees=(replace(knee(), spacing=spacing),), radiographs=1))
    VALIDATOR.validate(line)
    assert line["knees"][0].get("spacing") == written


def test_a_look_tells_how_an_image_was_decided_without_its_pixels() -> None:
    crop, box = np.zeros((224, 224), np.uint8), Box(1.234, 2, 3, 4)
    look = FilmLook(
        SOURCE,
        steps=(Step("View", "frontal."), Step("Left knee", "metal_or_implant: there.", passed=False)),
        knees=(
            SeenKnee(box, 0.98765, 0, 0, 0, 0, Side.RIGHT, None, crop),
            SeenKnee(box, 0.9, 0, 0, 1, 0, Side.LEFT, RefusalCode.METAL),
            SeenKnee(box, 0.3, 0, 0, 0, 0),
        ),
        letters=(SeenLetter(Side.LEFT, True, box),),
        inverted=True,
    )
    unread = FilmLook(SourceImage("", "", "", 0, 0), steps=(Step("Can it be read", "unreadable: no.", passed=False),))
    line = result_line(StudyFindings("1.2", knees=(knee(),), radiographs=2, looks=(look, unread)))
    VALIDATOR.validate(line)
    assert line["looks"][0]["source"] == "1.2.3.4" and "source" not in line["looks"][1]
    assert [step["passed"] for step in line["looks"][0]["steps"]] == [True, False]
    edges = [1.23, 2, 3, 4]
    assert line["looks"][0]["knees"] == [
        {"box": edges, "score": 0.9877, "side": "R"},
        {"box": edges, "score": 0.9, "side": "L", "code": "metal_or_implant"},
        {"box": edges, "score": 0.3},
    ]
    assert line["looks"][0]["letters"] == [{"side": "L", "mirrored": True, "box": edges}]
    assert line["looks"][0]["inverted"] is True and len(encode(line)) < 2000


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        (StudyFindings("1.2", refusals=(REFUSAL,), radiographs=1), "refused"),
        (StudyFindings("", refusals=(REFUSAL,), radiographs=1), "refused"),
        (StudyFindings("1.2"), "nothing_to_score"),
    ],
)
def test_a_study_without_knees_says_why(findings: StudyFindings, status: str) -> None:
    line = result_line(findings)
    VALIDATOR.validate(line)
    assert line["status"] == status


def test_a_failure_is_a_line_too() -> None:
    line = failed_line("1.2.3")
    VALIDATOR.validate(line)
    assert (line["study"], line["status"]) == ("1.2.3", "failed")


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "done"},
        {"status": "scored", "knees": []},
        {"status": "refused", "refusals": []},
        {"files": ["../../etc/passwd"]},
        {"files": ["1.2.840.113619.1.dcm"]},
        {"surprise": 1},
    ],
)
def test_the_schema_is_not_empty_words(wrong: dict[str, object]) -> None:
    line = result_line(StudyFindings("1.2", knees=(knee(),), radiographs=1), ["2.25.1.dcm"])
    assert not VALIDATOR.is_valid(line | wrong)


def test_schema_and_word_list_name_the_same_codes() -> None:
    definitions = schema()["$defs"]
    assert definitions["code"]["enum"] == [code.value for code in RefusalCode]
    assert schema()["properties"]["status"]["enum"] == [status.value for status in StudyStatus]
    assert definitions["side"]["enum"] == [side.value for side in Side]


def test_a_line_is_one_line_of_ascii() -> None:
    text = encode(failed_line("1.2.3") | {"study": "1.2\n\u00e9"})
    assert text.count("\n") == 1
    assert text.isascii()
    assert json.loads(text)["study"] == "1.2\n\u00e9"
