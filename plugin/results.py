"""One line of `results.jsonl` for each study; the keys are a contract (docs/results.md, results.schema.json).

The worker keeps the same line with its job, so that `genu score` and the service say the same of the same study.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from dicom_templates.mr_words import origin_words
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
from inference.mr_findings import VolumeFinding
from inference.mr_stacks import MR_CLASSES

ResultLine = dict[str, Any]


def result_line(findings: StudyFindings, files: Sequence[str] = ()) -> ResultLine:
    """The outcome of one study as a JSON object; `files` are the names of the objects written for it."""
    return {
        "study": findings.study_instance_uid,
        "status": findings.status.value,
        "knees": [_knee(knee) for knee in findings.knees],
        "volumes": [_volume(volume) for volume in findings.volumes],
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
        "volumes": [],
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


def _volume(volume: VolumeFinding) -> ResultLine:
    """One outcome of one knee of an MR series. Of clinical variables only the names: their values are the patient's."""
    outcome, top = volume.outcome, volume.top
    line: ResultLine = {
        "side": volume.side.value,
        "series": volume.series_instance_uid,
        "sequence": volume.sequence,
        "chosen_by": volume.chosen_by,
        "task": volume.model.task,
        "target": outcome.target,
        "classes": list(outcome.classes),
        "probabilities": [round(value, 6) for value in outcome.probabilities],
        "low": [round(value, 6) for value in outcome.low],
        "high": [round(value, 6) for value in outcome.high],
        "interval": outcome.method,
    }
    if outcome.threshold is not None:
        line |= {"threshold": round(outcome.threshold, 6), "above": outcome.above}
    line["clinical"] = {
        "known": [value.name for value in outcome.clinical if not value.imputed],
        "imputed": [value.name for value in outcome.clinical if value.imputed],
    }
    line["total"] = volume.total
    line["slices"] = [{"index": one.index, "attention": round(one.attention, 6)} for one in volume.slices]
    line["peak"] = {"index": top.index, "source": top.source.sop_instance_uid}
    if top.source.frame is not None:
        line["peak"]["frame"] = top.source.frame
    line["peak"]["region"] = _box(volume.region)
    return line | {"origin": origin_words(outcome), "model": _model(volume.model)}


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
    """How one image, or one MR series, was decided, without pixels; `genu explain` draws the same."""
    line: ResultLine = {"source": look.source.sop_instance_uid} if look.source.sop_instance_uid else {}
    if look.source.sop_class_uid in MR_CLASSES and look.source.series_instance_uid:
        line["series"] = look.source.series_instance_uid
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
