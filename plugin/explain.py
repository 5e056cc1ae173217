"""What `genu explain` tells of one image or MR series, in words and small pictures: the facts of its page and picture.

Nothing here comes from free text of a header, and nothing from the name of a file: an image is known by its UID.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_templates import codes
from dicom_templates.card import found_sentence, is_written_on
from dicom_templates.drawing import Rgb, blend, cut, shown_part, stretched
from dicom_templates.identity import SIDE_WORDS, ascii_text
from dicom_templates.pain import pain_sentence
from inference.findings import (
    Evidence,
    FilmLook,
    KneeFinding,
    ModelIdentity,
    Refusal,
    SeenKnee,
    Step,
    StudyFindings,
)
from inference.mr_findings import VolumeFinding
from plugin import explain_mr
from plugin.negotiation import is_uid

HEADER_QUESTIONS: Final = frozenset(
    {"Can it be read", "Study", "Patient", "SOP class", "Image Type", "Anatomy", "View", "Side by header"}
)
WITHHELD: Final = "The film is not shown: Burned In Annotation says that something is written onto it."
NOT_LOOKED_AT: Final = "The film is not shown: the header ended the questions, the pixels were not looked at."
UNDECODED: Final = "The film is not shown: its pixels could not be read."
NO_IDENTITY: Final = "No name, number or description of the patient or the request stands here."
ABOUT: Final = ("anatomy", "view", "plane", "sequence", "slices", "side", "clinical")


@dataclass(frozen=True, eq=False)
class Page:
    """One image or one MR series: what was seen, what was decided and why.

    `name` is that of its files, without a suffix; `film` the image as uint8 (rows, columns), None where it is not to be
    shown, and `why_no_film` then says why. `volumes` are what was found on the series, and `series` the looks of all MR
    series of the study; both are empty for a film.
    """

    name: str
    look: FilmLook
    refusals: tuple[Refusal, ...] = ()
    knees: tuple[KneeFinding, ...] = ()
    film: npt.NDArray[np.uint8] | None = None
    why_no_film: str = ""
    models: tuple[ModelIdentity, ...] = ()
    software: str = ""
    volumes: tuple[VolumeFinding, ...] = ()
    series: tuple[FilmLook, ...] = ()

    @property
    def is_series(self) -> bool:
        """Whether it is about an MR series that a bundle was asked about."""
        return bool(self.series)

    @property
    def is_synthetic(self) -> bool:
        """Whether a stand-in spoke, so that grades mean nothing."""
        return any(model.synthetic for model in self.models)


def pages_of(findings: StudyFindings, headers: Sequence[Dataset], software: str, start: int = 1) -> Iterator[Page]:
    """A page for each film and each MR series of a study; `headers` are those of its instances, in any order.

    Pages of what has no UID are numbered, beginning with `start` for the first image of the study.
    """
    written_on = {str(header.get("SOPInstanceUID", "")) for header in headers if is_written_on(header)}
    series = tuple(filter(explain_mr.is_series, findings.looks)) if findings.mr_images else ()
    series_of = {str(h.get("SOPInstanceUID", "")): str(h.get("SeriesInstanceUID", "")) for h in headers}
    for number, look in enumerate(findings.looks, start):
        if look in series:
            yield _series_page(look, series, findings, series_of, written_on, software)
            continue
        uid = look.source.sop_instance_uid
        film = findings.renderings.get(uid)
        reason = "" if film is not None else NOT_LOOKED_AT if _is_of_header(look.steps) else UNDECODED
        if uid in written_on:
            film, reason = None, WITHHELD
        yield Page(
            name=uid if is_uid(uid) else f"image-{number}",
            look=look,
            refusals=tuple(refusal for refusal in findings.refusals if _is_about(refusal, look)),
            knees=tuple(knee for knee in findings.knees if knee.source.sop_instance_uid == uid),
            film=film,
            why_no_film=reason,
            models=findings.models,
            software=software,
        )


def _series_page(
    look: FilmLook,
    series: tuple[FilmLook, ...],
    findings: StudyFindings,
    series_of: Mapping[str, str],
    written_on: Set[str],
    software: str,
) -> Page:
    uid = look.source.series_instance_uid
    volumes = tuple(volume for volume in findings.volumes if volume.series_instance_uid == uid)
    shown = not any(one.source.sop_instance_uid in written_on for volume in volumes for one in volume.slices)
    return Page(
        name=uid if is_uid(uid) else f"series-{series.index(look) + 1}",
        look=look,
        refusals=tuple(
            one
            for one in findings.refusals
            if _is_about(one, look) or (one.source is not None and series_of.get(one.source) == uid)
        ),
        why_no_film="" if shown else explain_mr.WITHHELD,
        models=tuple(volume.model for volume in volumes),
        software=software,
        volumes=volumes,
        series=series,
    )


def verdict(page: Page) -> tuple[str, ...]:
    """The outcome, one line for each knee."""
    lines = [f"{SIDE_WORDS[knee.side]} KNEE: KELLGREN-LAWRENCE GRADE {knee.kl.grade}" for knee in page.knees]
    lines += [explain_mr.verdict_line(volume) for volume in page.volumes]
    refused = dict.fromkeys(refusal.side for refusal in page.refusals)
    sides = [side for side in refused if side is not None or not page.volumes]
    lines += [f"{SIDE_WORDS[side]} KNEE NOT SCORED" if side is not None else "NOT SCORED" for side in sides]
    return tuple(lines) or ("NOT SCORED",)


def image_lines(page: Page) -> tuple[str, ...]:
    """Which image it is."""
    source = page.look.source
    if page.is_series:
        uid = source.series_instance_uid
        return (f"Series Instance UID {uid}" if is_uid(uid) else "no UID is known", _class_name(source.sop_class_uid))
    lines = [f"SOP Instance UID {source.sop_instance_uid}" if is_uid(source.sop_instance_uid) else "no UID is known"]
    if source.sop_class_uid:
        lines.append(_class_name(source.sop_class_uid))
    if source.rows and source.columns:
        lines.append(f"{source.columns} columns x {source.rows} rows")
    return tuple(lines)


def _class_name(uid: str) -> str:
    return ascii_text(UID(uid).name, 64)


def remedies(page: Page) -> Iterator[tuple[str, str, str, str]]:
    """Of each refusal: whom it concerns with its code, what the code means, what was found, what to do."""
    for refusal in page.refusals:
        whom = f"{SIDE_WORDS[refusal.side].capitalize()} knee" if refusal.side is not None else None
        whom = whom or ("The series" if page.is_series else "The image")
        meaning = codes.REFUSALS[refusal.code].meaning
        yield f"{whom}: {refusal.code.value}", meaning, found_sentence(refusal), codes.REMEDIES[refusal.code]


def path_of(page: Page) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    """The steps of the decision, those of the header first; of an MR series the sequences that were wanted."""
    if page.is_series:
        return (("Sequences that a bundle is made for", page.look.steps),)
    header = tuple(step for step in page.look.steps if step.question in HEADER_QUESTIONS)
    pixels = tuple(step for step in page.look.steps if step.question not in HEADER_QUESTIONS)
    return tuple((name, steps) for name, steps in (("Header", header), ("Pixels", pixels)) if steps)


def ending(page: Page) -> str:
    """What is said of a step that was not passed: a film's way ends there, a series is asked about other sequences."""
    return "" if page.is_series else " It ended here."


def evidence_of(page: Page) -> tuple[Evidence, ...]:
    """All evidence, each once, in the order of ABOUT."""
    said = [*page.look.evidence, *(one for knee in page.knees for one in knee.evidence)]
    said += [one for volume in page.volumes for one in volume.evidence]
    return tuple(sorted(dict.fromkeys(said), key=lambda e: ABOUT.index(e.about) if e.about in ABOUT else len(ABOUT)))


def place_rows(page: Page) -> Iterator[tuple[str, ...]]:
    """Of each place that may be a knee: what it is, score, box, and how it appears."""
    for knee in page.look.knees:
        box = ", ".join(f"{edge:.0f}" for edge in (knee.box.left, knee.box.top, knee.box.right, knee.box.bottom))
        looks = (f"{value:.2f}" for value in (knee.fibula_right, knee.metal, knee.cast))
        yield _became(knee), f"{knee.score:.2f}", box, f"{knee.tilt:+.0f}", *looks


PLACE_TITLES: Final = ("place", "score", "left, top, right, bottom", "tilt", "fibula right", "metal", "cast")


def film_sentences(page: Page) -> Iterator[str]:
    """What was seen of the film as a whole, and the size of its pixels."""
    look = page.look
    for letter in look.letters:
        column, row = (letter.box.left + letter.box.right) / 2, (letter.box.top + letter.box.bottom) / 2
        backwards = ", in mirror writing" if letter.mirrored else ""
        yield f"Letter {letter.side.value} at column {column:.0f}, row {row:.0f}{backwards}."
    if _has_pixels(look):
        if not look.letters:
            yield "No burned-in side letter was read."
        yield f"Another view: {look.other_view:.2f}; turned: {look.turned:.2f} (scores from 0 to 1)."
    if look.inverted:
        yield "Grey values were inverted, and turned round."
    for spacing in dict.fromkeys(knee.spacing for knee in page.knees if knee.spacing is not None):
        size = f"{spacing.lengths[1]:.3f} x {spacing.lengths[0]:.3f} mm, " if spacing.lengths is not None else ""
        yield f"Pixel spacing: {size}{spacing.kind}{f', by {spacing.source}' if spacing.source else ''}."


def knee_lines(knee: KneeFinding) -> tuple[str, ...]:
    """Of one scored knee: side and grade, the probabilities, and what else is to be known."""
    chances = "  ".join(f"KL {grade}: {value:.2f}" for grade, value in enumerate(knee.kl.probabilities))
    lines = [f"{SIDE_WORDS[knee.side]} knee, {knee.kl.words}, expected grade {knee.kl.expected:.2f}", chances]
    if knee.kl.probabilities[knee.kl.grade] < max(knee.kl.probabilities):
        lines.append("The bundle reads the grade from all five probabilities; it need not be the most probable one.")
    if knee.pain is not None:
        lines.append(f"{pain_sentence(knee.pain)} ({knee.pain.model.name} {knee.pain.model.version}).")
    if knee.kl.conformal_set and knee.kl.coverage is not None:
        low, high = min(knee.kl.conformal_set), max(knee.kl.conformal_set)
        grades = f"grade {low}" if low == high else f"grades {low} to {high}"
        share = f"{100 * knee.kl.coverage:g} %"
        lines.append(
            f"Conformal set: {grades}. For {share} of knees the true grade is in theirs (docs/uncertainty.md)."
        )
    return tuple(lines)


def crop_of(page: Page, knee: KneeFinding) -> npt.NDArray[np.uint8] | None:
    """What the model was given, None where it is not known or not to be shown."""
    if page.why_no_film == WITHHELD:
        return None
    return next((seen.crop for seen in page.look.knees if seen.side is knee.side and seen.crop is not None), None)


def attention(page: Page, knee: KneeFinding, longest: int) -> tuple[Rgb, Rgb]:
    """The knee on its film, and the same with the model's attention over it; where no film is shown, that alone."""
    rows, columns = knee.source.rows, knee.source.columns
    film = page.film if page.film is not None else np.zeros((rows, columns), np.uint8)
    view = shown_part(knee.box, rows, columns)
    scale = longest / max(view.width, view.height)
    size = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
    plain = cut(film, view, size)
    return plain, blend(plain, stretched(knee.saliency, view, size))


def enlarged(crop: npt.NDArray[np.uint8], side: int) -> Rgb:
    """A crop as a picture of `side` by `side` pixels."""
    return np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")).copy()


def _became(knee: SeenKnee) -> str:
    which = f"{SIDE_WORDS[knee.side].lower()}, " if knee.side is not None else ""
    if knee.code is not None:
        return f"{which}{knee.code.value}"
    return f"{which}scored" if knee.crop is not None else "perhaps a knee"


def _is_about(refusal: Refusal, look: FilmLook) -> bool:
    """A refusal without an image belongs to the look that ends with it."""
    if refusal.source is not None:
        return refusal.source == look.source.sop_instance_uid
    return any(not step.passed and step.answer == f"{refusal.code.value}: {refusal.reason}" for step in look.steps)


def _is_of_header(steps: Sequence[Step]) -> bool:
    return all(step.question in HEADER_QUESTIONS for step in steps)


def _has_pixels(look: FilmLook) -> bool:
    """Whether the film was looked at, and not only asked for."""
    return any(step.question not in HEADER_QUESTIONS | {"Pixels"} for step in look.steps)
