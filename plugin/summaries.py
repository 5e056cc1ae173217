"""What became of a study, in one sentence for a person. No patient data: sides, grades, reasons."""

import json

from dicom_templates.codes import REFUSALS
from inference.findings import RefusalCode
from plugin.results import ResultLine
from plugin.rows import JobRow, JobState

SIDES = {"L": "left", "R": "right"}


def of_job(job: JobRow | None) -> str:
    """The state of a study's latest revision."""
    if job is None:
        return "Genu has not looked at this study: it scores a study once nothing new has come for a while."
    if job.state is JobState.RUNNING:
        return "Being scored."
    if job.state is JobState.QUEUED:
        return f"Waits for its next attempt: {job.error}" if job.error else "Waits to be scored."
    if job.state is JobState.DEAD:
        return f"Given up: {job.error}"
    return of_result(json.loads(job.result)) if job.result else "Done."


def of_result(line: ResultLine) -> str:
    """Grades first, then what was refused and why."""
    grades = [f"{SIDES[knee['side']]} knee: Kellgren-Lawrence grade {knee['kl']['grade']}" for knee in line["knees"]]
    told = f"{'; '.join(grades)} (research only)." if grades else ""
    reasons = [f"{_what(refusal)}: {refusal['reason']}" for refusal in line["refusals"]]
    before = "Nothing to score." if line["status"] == "nothing_to_score" else "Refused." if not grades else ""
    return " ".join(filter(None, (before, told[:1].upper() + told[1:], *reasons)))


def _what(refusal: ResultLine) -> str:
    side, meaning = SIDES.get(refusal.get("side", ""), ""), REFUSALS[RefusalCode(refusal["code"])].meaning
    return f"{side.capitalize()} knee, {meaning[:1].lower()}{meaning[1:]}" if side else meaning
