"""What became of a study, in one sentence for a person. No patient data: sides, grades, reasons."""

import json

from dicom_templates.codes import MODEL_SYNTHETIC, REFUSALS
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
    """Grades first, then what is predicted from MR series, then what was refused and why."""
    volumes = line.get("volumes", [])
    found = [
        f"{SIDES[knee['side']]} knee: Kellgren-Lawrence grade {knee['kl']['grade']}{_pain(knee)}"
        for knee in line["knees"]
    ]
    found += map(_volume, volumes)
    mark = f"{MODEL_SYNTHETIC.meaning}; " if any(map(_is_synthetic, (*line["knees"], *volumes))) else ""
    told = f"{'; '.join(found)} ({mark}research only)." if found else ""
    reasons = [f"{_what(refusal)}: {refusal['reason']}" for refusal in line["refusals"]]
    before = "Nothing to score." if line["status"] == "nothing_to_score" else "Refused." if not found else ""
    return " ".join(filter(None, (before, told[:1].upper() + told[1:], *reasons)))


def _volume(volume: ResultLine) -> str:
    """Probability with its interval; of more than two classes all of them."""
    of_last = f"{volume['probabilities'][-1]:.2f} ({volume['low'][-1]:.2f} to {volume['high'][-1]:.2f})"
    words = f"probability {of_last} of {volume['classes'][-1]}"
    if len(volume["classes"]) > 2:
        pairs = zip(volume["classes"], volume["probabilities"], strict=True)
        words = f"probabilities: {', '.join(f'{name} {value:.2f}' for name, value in pairs)}"
    return f"{SIDES[volume['side']]} knee, {volume['sequence']}: {words}, {volume['origin']}"


def _is_synthetic(knee: ResultLine) -> bool:
    """Whether a stand-in spoke about the knee; lines of older versions may not name their models."""
    models = (knee.get("model"), knee.get("pain", {}).get("model"))
    return any(model is not None and model["synthetic"] for model in models)


def _pain(knee: ResultLine) -> str:
    """Predicted pain with its interval, empty where there is none; lines of older versions have none."""
    if (pain := knee.get("pain")) is None:
        return ""
    interval = f"{100 * pain['coverage']:.0f} % interval {pain['low']:.1f} to {pain['high']:.1f}"
    return f", predicted pain {pain['score']:.1f} of 10 ({interval}; {pain['origin']})"


def _what(refusal: ResultLine) -> str:
    side, meaning = SIDES.get(refusal.get("side", ""), ""), REFUSALS[RefusalCode(refusal["code"])].meaning
    return f"{side.capitalize()} knee, {meaning[:1].lower()}{meaning[1:]}" if side else meaning
