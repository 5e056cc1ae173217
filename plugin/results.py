"""One line of `results.jsonl` for each study; the keys are a contract (docs/results.md, results.schema.json).

The worker keeps the same line with its job, so that `genu score` and the service say the same of the same study.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from dicom_templates.pain import ORIGIN, rounded
from inference.findings import (
    Box,
    FilmLook,
    KneeFinding,
    ModelIdentity,
    PainFinding,
    Refusal,
    SeenKnee,
    SeenLetter,
    StudyFindings,
    StudyStatus,
)

ResultLine = dict[str, Any]


def result_line(findings: StudyFindings, files: Sequence[str] = ()) -> ResultLine:
    """The outcome of one study as a JSON object; `files` are the names of the objects written for it."""
    return {
        "study": findings.study_instance_uid,
        "status": findings.status.value,
        "knees": [_knee(knee) for knee in findings.knees],
        "refusals": [_refusal(refusal) for refusal in findings.refusals],
        "looks": [_look(look) for look in findings.looks],
        "files": list(files),
    }


def failed_line(study_instance_uid: str) -> ResultLine:
    """The line of a study whose scoring ended in an unexpected error; the error itself stands in the log."""
    return {
        "study": study_instance_uid,
        "status": StudyStatus.FAILED.value,
        "knees": [],
        "refusals": [],
        "looks": [],
        "files": [],
    }


def encode(line: ResultLine) -> str:
    """One line of JSON Lines, its newline included; non-ASCII is escaped, so any reader takes it."""
    return json.dumps(line, allow_nan=False, separators=(", ", ": ")) + "\n"


@cache
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of one line."""
    text = package_files("plugin").joinpath("results.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _knee(knee: KneeFinding) -> ResultLine:
    kl: ResultLine = {
        "grade": knee.kl.grade,
        "probabilities": [round(probability, 6) for probability in knee.kl.probabilities],
    }
    if knee.kl.conformal_set is not None:
        kl["set"] = list(knee.kl.conformal_set)
    if knee.kl.coverage is not None:
        kl["coverage"] = knee.kl.coverage
    line: ResultLine = {"side": knee.side.value, "source": knee.source.sop_instance_uid, "kl": kl}
    if knee.source.frame is not None:
        line["frame"] = knee.source.frame
    line["box"] = _box(knee.box)
    if (spacing := knee.spacing) is not None:
        line["spacing"] = {"kind": spacing.kind, "source": spacing.source}
        if (lengths := spacing.lengths) is not None:
            line["spacing"] |= {"rows_mm": round(lengths[0], 6), "columns_mm": round(lengths[1], 6)}
    if knee.pain is not None:
        line["pain"] = _pain(knee.pain)
    line["model"] = _model(knee.model)
    return line


def _pain(pain: PainFinding) -> ResultLine:
    """The numbers as report and heatmap tell them, and that nobody asked the patient."""
    score, low, high = rounded(pain)
    numbers = {"score": score, "low": low, "high": high, "coverage": round(pain.coverage, 4)}
    return {**numbers, "origin": ORIGIN, "model": _model(pain.model)}


def _model(model: ModelIdentity) -> ResultLine:
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "synthetic": model.synthetic,
    }


def _refusal(refusal: Refusal) -> ResultLine:
    line: ResultLine = {"code": refusal.code.value, "reason": refusal.reason}
    if refusal.source is not None:
        line["source"] = refusal.source
    if refusal.side is not None:
        line["side"] = refusal.side.value
    return line


def _look(look: FilmLook) -> ResultLine:
    """How one image was decided, without pixels; `genu explain` draws the same."""
    line: ResultLine = {"source": look.source.sop_instance_uid} if look.source.sop_instance_uid else {}
    line["steps"] = [{"question": step.question, "answer": step.answer, "passed": step.passed} for step in look.steps]
    return line | {
        "knees": [_place(knee) for knee in look.knees],
        "letters": [_letter(letter) for letter in look.letters],
        "inverted": look.inverted,
    }


def _place(knee: SeenKnee) -> ResultLine:
    line: ResultLine = {"box": _box(knee.box), "score": round(knee.score, 4)}
    if knee.side is not None:
        line["side"] = knee.side.value
    if knee.code is not None:
        line["code"] = knee.code.value
    return line


def _letter(letter: SeenLetter) -> ResultLine:
    return {"side": letter.side.value, "mirrored": letter.mirrored, "box": _box(letter.box)}


def _box(box: Box) -> list[float]:
    return [round(edge, 2) for edge in (box.left, box.top, box.right, box.bottom)]
