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
from inference.mr_findings import ClinicalValue, Grid, OutcomeFinding, SeenSlice, VolumeFinding
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


def volume(**outcome: object) -> VolumeFinding:
    grid = Grid((1, 0, 0), (0, 0, -1), (0, 3, 0), 0.4, 0.4)
    box, image = Box(-8.0, 0.0, 40.0, 48.0), np.zeros((48, 32), np.uint8)
    slices = tuple(
        SeenSlice(
            SourceImage("1.2.840.10008.5.1.4.1.1.4.1", "1.2.9", "1.2.8", 48, 32, frame=number + 1),
            number,
            (0.0, 3.0 * number, 0.0),
            0.25 * number,
            Saliency(np.zeros((7, 7), np.float32), box),
            image,
        )
        for number in (1, 3)
    )
    found = {
        "target": "progression_abs",
        "classes": ("no progression", "progression of 0.5 mm or more"),
        "probabilities": (0.63, 0.37),
        "low": (0.57, 0.27),
        "high": (0.73, 0.43),
        "method": "Venn-Abers, by patient",
        "threshold": 0.3,
        "clinical": (ClinicalValue("age", 61.0, "PatientAge"), ClinicalValue("bmi", 29.123, None)),
        "model": replace(MODEL, task="jsn_progression"),
        **outcome,
    }
    region = Box(3.0, 4.0, 9.0, 11.0)
    told = OutcomeFinding(**found)  # type: ignore[arg-type]
    return VolumeFinding(Side.LEFT, "1.2.8", "coronal IW TSE", "timing", told, slices, 37, grid, 1, region)


def test_a_volume_has_the_keys_of_the_contract_and_no_value_of_the_patient() -> None:
    line = result_line(StudyFindings("1.2", volumes=(volume(),), mr_images=37))
    VALIDATOR.validate(line)
    assert line["status"] == "scored"
    (told,) = line["volumes"]
    assert told["clinical"] == {"known": ["age"], "imputed": ["bmi"]}
    assert not {"61", "29.123"} & set(encode(line).replace(",", " ").replace("]", " ").split())
    assert (told["threshold"], told["above"]) == (0.3, True)
    assert told["slices"] == [{"index": 1, "attention": 0.25}, {"index": 3, "attention": 0.75}]
    assert told["peak"] == {"index": 3, "source": "1.2.9", "frame": 4, "region": [3.0, 4.0, 9.0, 11.0]}
    assert told["origin"] == "predicted from image, not measured"
    three = {"classes": ("a", "b", "c"), "probabilities": (0.5, 0.3, 0.2), "low": (0.4, 0.2, 0.1)}
    pain = replace(MODEL, task="womac_pain")
    other = volume(**three, high=(0.6, 0.4, 0.3), threshold=None, target="womac_pain_class", model=pain)
    line = result_line(StudyFindings("1.2", volumes=(other,), mr_images=37))
    VALIDATOR.validate(line)
    assert not {"threshold", "above"} & set(line["volumes"][0])
    assert line["volumes"][0]["origin"] == "predicted from image, not patient-reported"


def test_a_look_of_mr_names_its_series() -> None:
    source = SourceImage("1.2.840.10008.5.1.4.1.1.4", "1.2.3", "1.2", 10, 10)
    look = FilmLook(source, steps=(Step("Coronal IW TSE", "13 slices, right knee, by description."),))
    line = result_line(StudyFindings("1.2", looks=(look, replace(look, source=SOURCE))))
    VALIDATOR.validate(line)
    assert line["looks"][0]["series"] == "1.2"
    assert "series" not in line["looks"][1]


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
