"""What changes of a film cost: each kind of change, step by step, on the same made films of `val` knees.

Every film goes through what the service does: DICOM object, selection, display, finding, sides, fitness, grade.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from inference.bundle import decode
from inference.errors import RefusalError
from inference.findings import Box, RefusalCode, Side
from inference.pixels import load_display
from inference.predictor import Predictor
from inference.preprocess import prepare, whole
from inference.reading import StudyInput, read_instance
from inference.studies import select
from training.dicomize import LabelledImage, to_dx
from training.exposure import exposed
from training.filmmaking import Placed, lateral_as_shown, make_film
from training.metrics import accuracy, bootstrap, quadratic_kappa

Image = npt.NDArray[np.float32]
Progress = Callable[[str], None]

EXPOSURE = 0.35  # strength of an ordinary film's exposure (`training.exposure.exposed`)
KNEE = 320  # pixels of a knee's crop on a made film
_ROWS, _COLUMNS = 3.0, 2.0  # of a made film, in knees
_FEWEST = 20  # scored knees, below which no kappa is told


@dataclass(frozen=True, eq=False)
class Case:
    """A film (rows, columns), 0..1, of one knee, and where its crop lies; `photometric` as the header says it."""

    film: Image
    box: Box
    row: LabelledImage
    photometric: str = "MONOCHROME2"


@dataclass(frozen=True)
class Change:
    """One step of one kind; `expected` is what should come of it: "scored", or "refused"."""

    kind: str
    step: str
    apply: Callable[[Case, np.random.Generator], Case]
    expected: str = "scored"


def make_case(crop: npt.NDArray[np.uint8], row: LabelledImage, rng: np.random.Generator) -> Case:
    """An ordinary film of one knee as it is stored: `crop` (S, S) shows the knee as a left one."""
    lateral = lateral_as_shown(row.side)
    shape = (round(KNEE * _ROWS), round(KNEE * _COLUMNS))
    x, y = (extent * rng.uniform(0.42, 0.58) for extent in shape[::-1])
    values = crop.astype(np.float32) / np.float32(255)
    values = values if lateral > 0 else np.ascontiguousarray(values[:, ::-1])
    made = make_film([(values, Placed(x, y, KNEE, rng.uniform(-3, 3), lateral))], shape, rng)
    half = KNEE / 2
    return Case(exposed(made.pixels, rng, EXPOSURE), Box(x - half, y - half, x + half, y + half), row)


def changes() -> tuple[Change, ...]:
    """Every kind of change, in steps from harmless to hopeless."""
    return (
        *(_change("rotation", f"{d:+d} degrees", _rotated(d)) for d in (-20, -10, -5, 5, 10, 20, 30)),
        *(_change("scale of the knee", f"x {f}", _scaled(f)) for f in (0.35, 0.5, 0.7, 1.4, 2.0)),
        *(_change("contrast", f"gamma {g}", _gamma(g)) for g in (0.4, 0.67, 1.5, 2.5)),
        *(_change("contrast", f"range x {c}", _linear(c, 0.5 * (1 - c))) for c in (0.5, 0.2, 0.05)),
        *(_change("over-exposure", f"x {f}", _linear(f, 0.0)) for f in (1.3, 1.8, 3.0)),
        *(_change("noise", f"deviation {s}", _noisy(s)) for s in (0.02, 0.05, 0.1, 0.2)),
        *(_change("JPEG", f"quality {q}", _jpeg(q)) for q in (90, 50, 20, 8)),
        *(_change("resolution", f"knee of {p} pixels", _shrunk(p)) for p in (224, 128, 96, 70, 50)),
        *(_change("cut off", f"{round(100 * s)} % of the knee", _cut_off(s)) for s in (0.05, 0.1, 0.2, 0.3, 0.5)),
        *(_change("crop offset", f"{round(100 * s)} % of the crop", _offset_crop(s)) for s in (0.05, 0.1, 0.2)),
        Change("MONOCHROME1", "declared", _monochrome1),
        Change("MONOCHROME1", "inverted, not declared", _linear(-1.0, 1.0)),
        Change("mirror", "mirrored, not declared", _mirrored, "refused"),
    )


def run(
    crops: npt.NDArray[np.uint8],
    rows: Sequence[LabelledImage],
    predictor: Predictor,
    progress: Progress,
    seed: int = 3,
) -> dict[str, Any]:
    """All figures.

    Args:
        crops: (N, S, S), each knee as a left one.
        rows: what each one is.
        predictor: with the bundle that is measured.
        progress: told what is being measured.
    """
    knees = enumerate(zip(crops, rows, strict=True))
    cases = [make_case(crop, row, np.random.default_rng([seed, number])) for number, (crop, row) in knees]
    truth = np.asarray([row.kl for row in rows], np.int64)
    subjects = [row.subject for row in rows]
    progress("crops, and films with the true box")
    spec = predictor.bundle.spec
    left = [Case(crop.astype(np.float32) / 255, whole(*crop.shape), replace(row, side=spec.canonical_side))
            for crop, row in zip(crops, rows, strict=True)]  # fmt: skip
    manifest = predictor.bundle.manifest
    results: dict[str, Any] = {
        "bundle": f"{manifest.name} {manifest.version} ({manifest.digest[:12]})",
        "knees": len(cases),
        "patients": len(set(subjects)),
        "crops": _figures(truth, _grades(predictor, [_true_crop(case, predictor) for case in left]), subjects),
        "true_box": _figures(truth, _grades(predictor, [_true_crop(case, predictor) for case in cases]), subjects),
    }
    base = _through(predictor, cases)
    results["films"] = _outcome(truth, base, base, subjects)
    results["films_of_crops"] = _outcome(truth, _through(predictor, left), base, subjects)
    results["changes"] = []
    for change in changes():
        progress(f"{change.kind}: {change.step}")
        changed = (change.apply(case, np.random.default_rng([seed + 1, n])) for n, case in enumerate(cases))
        found = _through(predictor, changed)
        row = {"kind": change.kind, "step": change.step, "expected": change.expected}
        results["changes"].append(row | _outcome(truth, found, base, subjects))
    return results


@dataclass(frozen=True, eq=False)
class _Found:
    """What came of N films: grades (N,), -1 where refused; whether the side was wrong; the codes of the refusals."""

    grades: npt.NDArray[np.int64]
    wrong_side: npt.NDArray[np.bool_]
    codes: tuple[str, ...]


def _through(predictor: Predictor, cases: Iterable[Case]) -> _Found:
    crops: list[Image] = []
    numbers, wrong, codes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            knees, code = _examine(predictor, case, Path(folder) / "film.dcm")
            codes.append(code)
            wrong.append(any(side is not case.row.side for side, _ in knees))
            if knees:
                numbers.append(number)
                crops.append(knees[0][1])
    grades = np.full(len(codes), -1, np.int64)
    found, strange = _answers(predictor, crops)
    grades[numbers] = np.where(strange, -1, found)
    for number in np.asarray(numbers, np.int64)[strange]:
        codes[number] = str(RefusalCode.UNLIKE_TRAINING)
    return _Found(grades, np.asarray(wrong, np.bool_), tuple(codes))


def _examine(predictor: Predictor, case: Case, path: Path) -> tuple[list[tuple[Side, Image]], str]:
    """The knees that would be scored, and the first refusal's code, empty for none."""
    dataset = to_dx(np.asarray((case.film * 255).round(), np.uint8), case.row)
    dataset.PatientOrientation = None
    if case.photometric == "MONOCHROME1":
        dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME1", "INVERSE"
    dataset.save_as(path, enforce_file_format=True)
    instance = read_instance(path)
    selection = select(StudyInput(instance.study_instance_uid, (instance,), ()))
    if not selection.candidates:
        return [], str(selection.refusals[0].code)
    try:
        image = load_display(instance)
    except RefusalError as error:
        return [], str(error.refusal.code)
    film = predictor.reader.examine(image, selection.candidates[0], predictor.bundle.spec)
    return [(knee.side, knee.crop) for knee in film.knees], str(film.refusals[0].code) if film.refusals else ""


def _true_crop(case: Case, predictor: Predictor) -> Image:
    spec = predictor.bundle.spec
    return prepare(case.film, case.box, spec, mirror=case.row.side is not spec.canonical_side)


def _grades(predictor: Predictor, crops: Sequence[Image]) -> npt.NDArray[np.int64]:
    return _answers(predictor, crops)[0]


def _answers(predictor: Predictor, crops: Sequence[Image]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The grades (N,), and which crops are refused as unlike the training knees (N,)."""
    if not crops:
        return np.zeros(0, np.int64), np.zeros(0, np.bool_)
    parts = [
        predictor.bundle.answer(torch.from_numpy(np.stack(crops[start : start + 32]))[:, None])
        for start in range(0, len(crops), 32)
    ]
    manifest = predictor.bundle.manifest
    grades = decode(torch.cat([part.probabilities for part in parts]).double().numpy(), manifest.decoder)
    scores = [part.unlike for part in parts if part.unlike is not None]
    if manifest.unlike_limit is None or not scores:
        return grades, np.zeros(len(crops), np.bool_)
    return grades, np.asarray((torch.cat(scores) > manifest.unlike_limit).numpy(), np.bool_)


def _figures(truth: npt.NDArray[np.int64], grades: npt.NDArray[np.int64], subjects: Sequence[str]) -> dict[str, Any]:
    return {
        "quadratic_kappa": quadratic_kappa(truth, grades),
        "quadratic_kappa_95": bootstrap(lambda rows: quadratic_kappa(truth[rows], grades[rows]), subjects, rounds=300),
        "accuracy": accuracy(truth, grades),
    }


def _outcome(truth: npt.NDArray[np.int64], found: _Found, base: _Found, subjects: Sequence[str]) -> dict[str, Any]:
    scored = found.grades >= 0
    both = scored & (base.grades >= 0)
    counts = {code: found.codes.count(code) for code in sorted(set(found.codes) - {""})}
    chosen = [subject for subject, kept in zip(subjects, scored, strict=True) if kept]
    if scored.sum() < _FEWEST:
        figures = dict.fromkeys(("quadratic_kappa", "quadratic_kappa_95", "accuracy"))
    else:
        figures = _figures(truth[scored], found.grades[scored], chosen)
    return {
        **figures,
        "refused": float(np.mean(~scored)),
        "codes": counts,
        "wrong_sides": int(found.wrong_side.sum()),
        "same_grade": float(np.mean(found.grades[both] == base.grades[both])) if both.any() else None,
        # The same knees on unchanged films: what is left of a set after refusals may be easier or harder.
        "quadratic_kappa_unchanged": quadratic_kappa(truth[both], base.grades[both]) if both.sum() >= _FEWEST else None,
    }


def _change(kind: str, step: str, apply: Callable[[Case, np.random.Generator], Case]) -> Change:
    return Change(kind, step, apply)


def _gamma(exponent: float) -> Callable[[Case, np.random.Generator], Case]:
    return lambda case, _: replace(case, film=np.asarray(case.film**exponent, np.float32))


def _linear(slope: float, intercept: float) -> Callable[[Case, np.random.Generator], Case]:
    def apply(case: Case, _: np.random.Generator) -> Case:
        return replace(case, film=np.asarray(np.clip(slope * case.film + intercept, 0, 1), np.float32))

    return apply


def _warped(case: Case, degrees: float, factor: float) -> Case:
    """Turned and enlarged about the knee."""
    middle = ((case.box.left + case.box.right) / 2, (case.box.top + case.box.bottom) / 2)
    matrix = cv2.getRotationMatrix2D(middle, degrees, factor)
    edge = float(case.film.min())
    film = cv2.warpAffine(case.film, matrix, case.film.shape[::-1], flags=cv2.INTER_LINEAR, borderValue=edge)
    return replace(case, film=np.asarray(film, np.float32))


def _rotated(degrees: float) -> Callable[[Case, np.random.Generator], Case]:
    return lambda case, _: _warped(case, degrees, 1.0)


def _scaled(factor: float) -> Callable[[Case, np.random.Generator], Case]:
    """The knee takes more or less of a film of the same size."""

    def apply(case: Case, _: np.random.Generator) -> Case:
        # warpAffine does not average.
        soft = case.film if factor > 0.8 else np.asarray(cv2.GaussianBlur(case.film, (0, 0), 0.4 / factor), np.float32)
        return _warped(replace(case, film=soft), 0.0, factor)

    return apply


def _noisy(deviation: float) -> Callable[[Case, np.random.Generator], Case]:
    def apply(case: Case, rng: np.random.Generator) -> Case:
        noise = deviation * rng.standard_normal(case.film.shape, dtype=np.float32)
        return replace(case, film=np.clip(case.film + noise, 0, 1))

    return apply


def _jpeg(quality: int) -> Callable[[Case, np.random.Generator], Case]:
    def apply(case: Case, _: np.random.Generator) -> Case:
        stored = np.asarray((case.film * 255).round(), np.uint8)
        coded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.float32)
        return replace(case, film=decoded / np.float32(255))

    return apply


def _shrunk(pixels: int) -> Callable[[Case, np.random.Generator], Case]:
    def apply(case: Case, _: np.random.Generator) -> Case:
        factor = pixels / KNEE
        film = cv2.resize(case.film, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return replace(case, film=np.asarray(film, np.float32))

    return apply


def _cut_off(share: float) -> Callable[[Case, np.random.Generator], Case]:
    """The film ends within the knee, at one of its four sides."""

    def apply(case: Case, rng: np.random.Generator) -> Case:
        box, lost, film = case.box, share * case.box.width, case.film
        parts = (
            film[:, round(box.left + lost) :],
            film[:, : round(box.right - lost)],
            film[round(box.top + lost) :],
            film[: round(box.bottom - lost)],
        )
        return replace(case, film=np.ascontiguousarray(parts[int(rng.integers(4))]))

    return apply


def _offset_crop(share: float) -> Callable[[Case, np.random.Generator], Case]:
    """A film collimated to a square as large as the crop, beside the crop by so much."""

    def apply(case: Case, rng: np.random.Generator) -> Case:
        box, angle = case.box, rng.uniform(0, 2 * np.pi)
        left = round(box.left + share * box.width * np.cos(angle))
        top = round(box.top + share * box.width * np.sin(angle))
        return replace(case, film=np.ascontiguousarray(case.film[max(0, top) : top + KNEE, max(0, left) : left + KNEE]))

    return apply


def _monochrome1(case: Case, _: np.random.Generator) -> Case:
    return replace(case, film=1 - case.film, photometric="MONOCHROME1")


def _mirrored(case: Case, _: np.random.Generator) -> Case:
    return replace(case, film=np.ascontiguousarray(case.film[:, ::-1]))
