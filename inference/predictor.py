"""A study in, its findings out: selection, pixels, knees, preprocessing, networks, explanation.

Images are decoded one after another and knees go through the networks in one batch per study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.bundle import Bundle
from inference.errors import BundleError, RefusalError
from inference.explain import to_source
from inference.findings import (
    Box,
    Evidence,
    KneeFinding,
    ModelIdentity,
    Refusal,
    RefusalCode,
    Saliency,
    Side,
    SourceImage,
    StudyFindings,
)
from inference.instances import Instance
from inference.knees import Located, find, settle
from inference.limits import DEFAULT_LIMITS, Limits
from inference.pixels import DisplayImage, load_display
from inference.preprocess import prepare
from inference.reading import StudyInput
from inference.studies import BILATERAL, Candidate, select

_SECOND_KNEE = 0.85  # of the best match's score: as good as that, a second knee is on the film
_ALIKE = 2.0  # two knees on one film are of about one size
_SMALLEST = 64  # pixels of a knee that are on the film; the networks see 128 or more
_WINDOWS = ((0.0, 0.5), (0.5, 1.0))


@dataclass(frozen=True, eq=False)
class _Knee:
    """A knee on its way to the networks."""

    side: Side
    source: SourceImage
    box: Box
    crop: npt.NDArray[np.float32]
    mirrored: bool
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, eq=False)
class Predictor:
    """Scores studies with the bundles it was given."""

    bundle: Bundle
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def load(
        cls, folders: Sequence[Path], *, threads: int | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> "Predictor":
        """Load the bundles, each checked against its stored probe.

        Args:
            folders: bundle folders; at present exactly one, of the task "kl".
            threads: of the networks on the CPU; None leaves torch's choice.
            limits: for reading files.

        Raises:
            BundleError: a bundle does not load, has a task that is not known, or there is not one of each task.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        bundles = [Bundle.load(folder) for folder in folders]
        tasks = [bundle.manifest.task for bundle in bundles]
        if tasks != ["kl"]:
            raise BundleError(f"the bundles have the tasks {tasks}; exactly one bundle with the task 'kl' is needed.")
        return cls(bundles[0], limits)

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """Who speaks in the reports."""
        return (self.bundle.manifest.identity(),)

    def score(
        self,
        study: StudyInput,
        *,
        accept_secondary_capture: bool = False,
    ) -> StudyFindings:
        """Score every frontal knee of a study.

        Args:
            study: the readable instances of one study, and the refusals of the others.
            accept_secondary_capture: the site sends knees as Secondary Capture.

        Returns:
            Findings and refusals; nothing that arrived is left out of both.
        """
        selection = select(study, accept_secondary_capture=accept_secondary_capture)
        refusals = list(selection.refusals)
        knees: list[_Knee] = []
        renderings: dict[str, npt.NDArray[np.uint8]] = {}
        for candidate in selection.candidates:
            try:
                image = load_display(candidate.instance, self.limits)
                renderings[image.source.sop_instance_uid] = (image.values * 255).round().astype(np.uint8)
                found, lost = self._knees(candidate, image)
            except RefusalError as error:
                refusals.append(_with_source(error.refusal, candidate))
                continue
            refusals += lost
            knees += found
        return StudyFindings(
            study_instance_uid=study.study_instance_uid,
            knees=self._findings(knees),
            refusals=tuple(refusals),
            radiographs=selection.radiographs,
            models=self.identities,
            looked_at=tuple(_source(instance) for instance in study.instances),
            renderings=renderings,
        )

    def _knees(self, candidate: Candidate, image: DisplayImage) -> tuple[list[_Knee], list[Refusal]]:
        if candidate.sides == BILATERAL:
            return self._both(candidate, image)
        assert isinstance(candidate.sides, Side)  # noqa: S101 - for the type checker
        matches = find(image.values, self.bundle.template)[0]
        self._refuse_two(matches, candidate)
        return self._one(matches, candidate.sides, candidate, image)

    def _both(self, candidate: Candidate, image: DisplayImage) -> tuple[list[_Knee], list[Refusal]]:
        sides = (Side.LEFT, Side.RIGHT) if candidate.columns_to_left is False else (Side.RIGHT, Side.LEFT)
        knees: list[_Knee] = []
        refusals: list[Refusal] = []
        halves = find(image.values, self.bundle.template, _WINDOWS)
        for matches in halves:
            if self._shows_two(matches):
                reason = (
                    "one half of the film shows two knees, so that the halves do not say which knee is which; "
                    "send a film with one knee in each half, or one film a knee."
                )
                raise RefusalError(RefusalCode.SIDE_UNKNOWN, reason, source=candidate.instance.sop_instance_uid)
        for side, matches in zip(sides, _of_one_size(halves), strict=True):
            found, lost = self._one(matches, side, candidate, image, half=True)
            knees += found
            refusals += lost
        return knees, refusals

    def _one(
        self, matches: list[Located], side: Side, candidate: Candidate, image: DisplayImage, *, half: bool = False
    ) -> tuple[list[_Knee], list[Refusal]]:
        score = matches[0].score if matches else 0.0
        if score < self.bundle.manifest.finder_threshold:
            where = "half of the film" if half else "film"
            reason = (
                f"no frontal knee joint was found on the {where}: the best match has a score of {score:.2f}, at least "
                f"{self.bundle.manifest.finder_threshold:.2f} is needed."
            )
            uid = candidate.instance.sop_instance_uid
            return [], [Refusal(RefusalCode.NO_KNEE_FOUND, reason, source=uid, side=side)]
        box = matches[0].box if half else settle(matches[0], image.values, self.bundle.template)
        if (seen := _on_film(box, image.source)) < _SMALLEST:
            reason = f"the knee is {seen} pixels large, at least {_SMALLEST} are needed: send the film in full size."
            uid = candidate.instance.sop_instance_uid
            return [], [Refusal(RefusalCode.NO_KNEE_FOUND, reason, source=uid, side=side)]
        # A film whose columns run towards the patient's right is stored mirrored.
        mirrored = (side is not self.bundle.spec.canonical_side) != (candidate.columns_to_left is False)
        values = prepare(image.values, box, self.bundle.spec, mirror=mirrored)
        location = Evidence("anatomy", "pixels", f"knee match {score:.2f}", "knee")
        return [_Knee(side, image.source, box, values, mirrored, (*candidate.evidence, location))], []

    def _refuse_two(self, matches: list[Located], candidate: Candidate) -> None:
        """A film that shows two knees, of which the header names one side: which of them is meant is not known."""
        if self._shows_two(matches):
            raise RefusalError(
                RefusalCode.SIDE_CONTRADICTORY,
                f"the header names one knee ({candidate.sides}), the film shows two (match scores "
                f"{matches[0].score:.2f} and {matches[1].score:.2f}); send it with laterality B, or one film a knee.",
                source=candidate.instance.sop_instance_uid,
            )

    def _shows_two(self, matches: list[Located]) -> bool:
        if len(matches) < 2 or matches[1].score < _SECOND_KNEE * matches[0].score:
            return False
        first, second = (match.box for match in matches)
        beside = abs(first.left + first.right - second.left - second.right) > abs(
            first.top + first.bottom - second.top - second.bottom
        )
        alike = 0.8 < first.width / second.width < 1.25
        return beside and alike and matches[1].score >= 1.5 * self.bundle.manifest.finder_threshold

    def _findings(self, knees: list[_Knee]) -> tuple[KneeFinding, ...]:
        if not knees:
            return ()
        prediction = self.bundle.predict(torch.from_numpy(np.stack([knee.crop for knee in knees]))[:, None])
        model = self.identities[0]
        return tuple(
            KneeFinding(
                side=knee.side,
                source=knee.source,
                box=knee.box,
                kl=finding,
                model=model,
                saliency=Saliency(to_source(values, mirrored=knee.mirrored), knee.box),
                evidence=knee.evidence,
            )
            for knee, finding, values in zip(knees, prediction.findings, prediction.maps, strict=True)
        )


def _of_one_size(halves: list[list[Located]]) -> list[list[Located]]:
    """The best matches of the two halves; where their sizes differ too much for two knees, the worse one is none."""
    left, right = halves
    if not left or not right or max(a := left[0].box.width, b := right[0].box.width) <= _ALIKE * min(a, b):
        return halves
    return [left, []] if left[0].score >= right[0].score else [[], right]


def _on_film(box: Box, film: SourceImage) -> int:
    """How many pixels of the box lie on the film, in its shorter direction."""
    across = min(box.right, film.columns) - max(box.left, 0.0)
    down = min(box.bottom, film.rows) - max(box.top, 0.0)
    return max(0, int(min(across, down)))


def _with_source(refusal: Refusal, candidate: Candidate) -> Refusal:
    if refusal.source is not None:
        return refusal
    return Refusal(refusal.code, refusal.reason, candidate.instance.sop_instance_uid, refusal.side)


def _source(instance: Instance) -> SourceImage:
    rows, columns = (instance.header.get(name) for name in ("Rows", "Columns"))
    return SourceImage(
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        rows=rows if isinstance(rows, int) else 0,
        columns=columns if isinstance(columns, int) else 0,
    )
