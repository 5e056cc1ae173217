"""One film, its header's statements given: which knees it shows, whose they are, and whether they are fit to be scored.

Every question leaves a step behind, so that a person can follow the decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from inference.finder import Finder, Sighting, Sightings
from inference.findings import (
    Box,
    Evidence,
    FilmLook,
    Refusal,
    RefusalCode,
    SeenKnee,
    SeenLetter,
    Side,
    Spacing,
    Step,
)
from inference.fitness import unfit_exposure, unfit_looks, unfit_place
from inference.markers import MarkerReader
from inference.pixels import DisplayImage
from inference.preprocess import PreprocessSpec, crop, equalise_flat, prepare, stored
from inference.sides import BOTH, Letter, Proven, Shown, Unproven, settle
from inference.spacing import pixel_shape, spacing_of
from inference.studies import Candidate

Image = npt.NDArray[np.float32]

_INVERTED = 0.5
_ALIKE = 1.6  # two knees on one film are of about one size
_OFFERED = 0.2  # of the limit: places below are not even shown to a person


@dataclass(frozen=True, eq=False)
class FoundKnee:
    """A knee on its way to the networks: `crop` (S, S), 0..1, on the canonical side, `mirrored` to be there or not."""

    side: Side
    box: Box
    crop: Image
    mirrored: bool
    evidence: tuple[Evidence, ...]
    spacing: Spacing


@dataclass(frozen=True, eq=False)
class ExaminedFilm:
    """`values` are the image's with bright bone, (rows, columns), 0..1; `knees` those that are to be scored."""

    values: Image
    knees: tuple[FoundKnee, ...]
    refusals: tuple[Refusal, ...]
    look: FilmLook

    def cut(self, knee: FoundKnee, found_by: PreprocessSpec, spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
        """One of its knees, found with the spec `found_by`, cut out by another: uint8 (S, S) on that one's side."""
        mirror = knee.mirrored == (spec.canonical_side is found_by.canonical_side)
        return stored(prepare(self.values, knee.box, spec, mirror=mirror))


@dataclass(frozen=True, eq=False)
class FilmReader:
    """Finds knees and letters; the same for every task."""

    finder: Finder
    markers: MarkerReader

    def examine(self, image: DisplayImage, candidate: Candidate, spec: PreprocessSpec) -> ExaminedFilm:
        """Look at one image.

        Args:
            image: display values of the source image.
            candidate: the same image, and what its header says.
            spec: how knees are cut out.
        """
        shape = pixel_shape(candidate.instance.header)
        sightings = self.finder.look(squared_pixels(image.values, shape))
        values = image.values
        if inverted := _is_inverted(sightings, self.finder.thresholds.knee):
            values = 1 - image.values
            if image.padding is not None:
                values[image.padding] = 0.0
            sightings = self.finder.look(squared_pixels(values, shape))
        film = _Film(image, candidate, spec, values, shape, sightings, inverted)
        film.decide(self.finder, self.markers)
        return film.result()


def squared_pixels(values: Image, shape: float) -> Image:
    """The image on square pixels; `shape` is the height of a pixel over its width."""
    if abs(shape - 1) < 0.01:
        return values
    size = (values.shape[1], max(1, round(values.shape[0] * shape)))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA if shape < 1 else cv2.INTER_LINEAR))


@dataclass(eq=False)
class _Film:
    """One film while it is decided upon. Sightings are on square pixels, boxes in pixels of the source."""

    image: DisplayImage
    candidate: Candidate
    spec: PreprocessSpec
    values: Image
    shape: float
    sightings: Sightings
    inverted: bool
    letters: tuple[Letter, ...] = ()
    steps: list[Step] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    knees: list[FoundKnee] = field(default_factory=list)
    seen: dict[int, SeenKnee] = field(default_factory=dict)
    said: list[Evidence] = field(default_factory=list)
    proof: tuple[Evidence, ...] = ()

    def decide(self, finder: Finder, markers: MarkerReader) -> None:
        """Ask one question after the other; the first refusal ends it."""
        limits = finder.thresholds
        for number, sighting in enumerate(self.sightings.knees):
            if sighting.score >= _OFFERED * limits.knee:
                self.seen[number] = _seen(sighting, self._box(sighting))
        found = [n for n, sighting in enumerate(self.sightings.knees) if sighting.score >= limits.knee]
        if not self._shows_knees(found, finder):
            return
        if not self._grey_values(found):
            return
        found.sort(key=lambda number: self.sightings.knees[number].x)
        self.letters = markers.read(squared_pixels(self.values, self.shape))
        proven = self._sides(found)
        for number, side in zip(found, proven, strict=bool(proven)):
            self._fit(number, side, finder)
        if proven and self.candidate.stating.side == BOTH and len(proven) == 1:
            reason = "the header says that the film shows both knees, one of them was found."
            self._refuse("Both knees", RefusalCode.NO_KNEE_FOUND, reason, proven[0].side.other)

    def result(self) -> ExaminedFilm:
        """What came of it."""
        look = FilmLook(
            source=self.image.source,
            evidence=(*self.candidate.evidence, *self.said, *self.proof),
            steps=(*self.candidate.steps, *self.steps),
            knees=tuple(self.seen.values()),
            letters=tuple(self._letter(letter) for letter in self.letters),
            inverted=self.inverted,
            turned=self.sightings.turned,
            other_view=self.sightings.other_view,
        )
        return ExaminedFilm(self.values, tuple(self.knees), tuple(self.refusals), look)

    def _shows_knees(self, found: Sequence[int], finder: Finder) -> bool:
        """Whether there are one or two upright frontal knees, and what it is if not."""
        limits, sightings, question = finder.thresholds, self.sightings, "Frontal knees on the film"
        best = max((sightings.knees[number].score for number in found), default=0.0)
        if sightings.other_view >= limits.other_view:
            reason = (
                f"the film looks like a lateral or axial view (score {sightings.other_view:.2f}, limit "
                f"{limits.other_view:.2f}); only frontal views (AP, PA) are scored."
            )
            return self._refuse(question, RefusalCode.NO_FRONTAL_VIEW, reason)
        if sightings.turned >= limits.turned and sightings.turned > best:
            reason = f"the knee lies on its side or head down (score {sightings.turned:.2f}): send the film upright."
            return self._refuse(question, RefusalCode.FILM_TURNED, reason)
        if not found:
            score = max((knee.score for knee in sightings.knees), default=0.0)
            reason = (
                f"no frontal knee joint was found on the film: the best place has a score of {score:.2f}, at least "
                f"{limits.knee:.2f} is needed."
            )
            side = self.candidate.stating.side
            return self._refuse(question, RefusalCode.NO_KNEE_FOUND, reason, side if isinstance(side, Side) else None)
        knees = [sightings.knees[number] for number in found]
        if len(knees) > 2 or (len(knees) == 2 and not _beside(*knees)):
            reason = (
                f"the film shows {len(knees)} knees that are not those of one person side by side, so that it is not "
                "known which is which: send one film a knee, or one with both beside each other."
            )
            return self._refuse(question, RefusalCode.SIDE_UNKNOWN, reason)
        scores = " and ".join(f"{knee.score:.2f}" for knee in knees)
        self.steps.append(Step(question, f"{len(knees)} found, score {scores} (limit {limits.knee:.2f})."))
        return True

    def _grey_values(self, found: Sequence[int]) -> bool:
        question = "Grey values"
        if any(self.sightings.knees[number].inverted > _INVERTED for number in found):
            reason = "the pixels do not say whether bones are bright or dark: send it with another window."
            return self._refuse(question, RefusalCode.POOR_EXPOSURE, reason)
        if self.inverted:
            self.said.append(Evidence("view", "pixels", "grey values inverted, corrected", "inverted"))
        self.steps.append(Step(question, "inverted; turned round." if self.inverted else "bones are bright."))
        return True

    def _sides(self, found: Sequence[int]) -> tuple[Proven, ...]:
        columns = self.values.shape[1]
        shown = [Shown(knee.x / columns, knee.fibula_right) for knee in map(self.sightings.knees.__getitem__, found)]
        sides = settle(self.candidate.stating, shown, self.letters)
        question = "Side"
        if isinstance(sides, Unproven):
            self._refuse(question, sides.code, sides.reason)
            for number in found:
                self.seen[number] = replace(self.seen[number], code=sides.code)
            return ()
        self.proof = tuple(dict.fromkeys(e for proven in sides for e in proven.evidence))
        sources = dict.fromkeys(e.source if e.source != "pixels" else e.value for p in sides for e in p.evidence)
        stated = self.candidate.stating.source
        told = ", ".join(name for name in ([stated] if stated else []) + list(sources) if name)
        self.steps.append(Step(question, f"{' and '.join(proven.side for proven in sides)}, by {told}."))
        return sides

    def _fit(self, number: int, proven: Proven, finder: Finder) -> None:
        """The last questions, about one knee."""
        sighting, box, source = self.sightings.knees[number], self.seen[number].box, self.image.source
        name = "Left knee" if proven.side is Side.LEFT else "Right knee"
        mirrored = (proven.lateral < 0) == (self.spec.canonical_side is Side.LEFT)
        cut = crop(self.values, box, self.spec.crop_size, mirror=mirrored)
        # What metal and casts look like is only known of films with shades.
        unfit = (
            unfit_place(box, source.rows, source.columns)
            or unfit_exposure(cut)
            or unfit_looks(sighting, finder.thresholds)
        )
        if unfit is not None:
            code, reason = unfit
            self._refuse(name, code, reason, proven.side)
            self.seen[number] = replace(self.seen[number], side=proven.side, code=code)
            return
        values = equalise_flat(cut, self.spec)
        self.seen[number] = replace(self.seen[number], side=proven.side, crop=stored(values))
        self.steps.append(Step(name, "fit to be scored: whole, large enough, no metal, no cast, well exposed."))
        location = Evidence("anatomy", "pixels", f"knee score {sighting.score:.2f}", "knee")
        evidence = (*self.candidate.evidence, *proven.evidence, location, *self.said)
        spacing = spacing_of(self.candidate.instance.header)
        self.knees.append(FoundKnee(proven.side, box, values, mirrored, evidence, spacing))

    def _refuse(self, question: str, code: RefusalCode, reason: str, side: Side | None = None) -> bool:
        """Always False."""
        self.refusals.append(Refusal(code, reason, self.image.source.sop_instance_uid, side))
        self.steps.append(Step(question, f"{code}: {reason}", passed=False))
        return False

    def _box(self, sighting: Sighting) -> Box:
        box = sighting.box
        return Box(box.left, box.top / self.shape, box.right, box.bottom / self.shape)

    def _letter(self, letter: Letter) -> SeenLetter:
        rows, columns = self.values.shape
        half = letter.size * rows / 2
        x, y = letter.across * columns, letter.down * rows
        return SeenLetter(letter.side, letter.mirrored, Box(x - half, y - half, x + half, y + half))


def _is_inverted(sightings: Sightings, limit: float) -> bool:
    votes = [knee.inverted > _INVERTED for knee in sightings.knees if knee.score >= limit]
    return sum(votes) * 2 > len(votes)


def _beside(one: Sighting, other: Sighting) -> bool:
    """Two knees of one size, one beside the other."""
    alike = max(one.size, other.size) <= _ALIKE * min(one.size, other.size)
    return alike and abs(one.x - other.x) > abs(one.y - other.y)


def _seen(sighting: Sighting, box: Box) -> SeenKnee:
    return SeenKnee(box, sighting.score, sighting.tilt, sighting.fibula_right, sighting.metal, sighting.cast)
