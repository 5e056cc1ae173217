"""A study in, its findings out: selection, pixels, knees and sides, preprocessing, networks, explanation.

Images are decoded one after another and knees go through the grader's networks in one batch per study; MR images are
left to `inference.mr_scoring` where a bundle for them serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from inference.bundle import Bundle, Prediction
from inference.errors import RefusalError
from inference.explain import to_source
from inference.films import ExaminedFilm, FilmReader, FoundKnee
from inference.finder import Finder
from inference.findings import (
    FilmLook,
    KLFinding,
    KneeFinding,
    ModelIdentity,
    PainFinding,
    Refusal,
    Saliency,
    SourceImage,
    Step,
    StudyFindings,
)
from inference.installed import installed
from inference.limits import DEFAULT_LIMITS, Limits
from inference.markers import MarkerReader
from inference.mr_choice import mr_instances
from inference.mr_scoring import looked_at, score_mr
from inference.mr_stacks import MR_CLASSES
from inference.pain import PainBundle
from inference.pain_manifest import PainManifest
from inference.pixels import load_display
from inference.reading import StudyInput
from inference.slice_bundle import SliceBundle
from inference.slice_manifest import SliceManifest
from inference.studies import Candidate, select, source_of
from inference.unlike import asked, unlike_training


@dataclass(frozen=True, eq=False)
class _Cut:
    """One knee on its way through the networks; `for_pain` uint8 (S, S), None without a bundle for it."""

    knee: FoundKnee
    source: SourceImage
    for_pain: npt.NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Predictor:
    """Scores studies with the bundles it was given; `reader` finds knees and letters on films, `slices` read MR."""

    bundle: Bundle
    reader: FilmReader
    limits: Limits = DEFAULT_LIMITS
    pain: PainBundle | None = None
    slices: tuple[SliceBundle, ...] = ()

    @classmethod
    def load(
        cls,
        folders: Sequence[Path],
        *,
        threads: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        allow_undeployed: bool = False,
    ) -> "Predictor":
        """Load the bundles, each checked against its stored probe.

        Args:
            folders: bundle folders, at most one of each task: "kl" (the one that ships where none is named), "pain";
                of those for knee MRI one for each outcome and sequence.
            threads: of the networks on the CPU; None leaves torch's choice.
            limits: for reading files.
            allow_undeployed: load bundles although the terms of their weights exclude use in a running service.

        Raises:
            BundleError: a bundle does not load, has a task that is not known, answers what another one answers, or
                must not be used here.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        grader, *others = installed(folders, allow_undeployed=allow_undeployed)
        pain = [PainBundle.load(manifest.folder) for manifest in others if isinstance(manifest, PainManifest)]
        reader = FilmReader(Finder.load(), MarkerReader.load())
        slices: list[SliceBundle] = []
        for manifest in others:
            if isinstance(manifest, SliceManifest):
                slices.append(SliceBundle.load(manifest.folder).sharing(slices))
        return cls(Bundle.load(grader.folder), reader, limits, pain[0] if pain else None, tuple(slices))

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """Who speaks in the reports."""
        others = (*(() if self.pain is None else (self.pain,)), *self.slices)
        return (self.bundle.manifest.identity(), *(bundle.manifest.identity() for bundle in others))

    def score(
        self,
        study: StudyInput,
        *,
        accept_secondary_capture: bool = False,
    ) -> StudyFindings:
        """Score every frontal knee of a study, and every knee on MR series that a bundle is made for.

        Args:
            study: the readable instances of one study, and the refusals of the others.
            accept_secondary_capture: the site sends knees as Secondary Capture.

        Returns:
            Findings and refusals; nothing that arrived is left out of both.
        """
        others = MR_CLASSES if self.slices else frozenset[str]()
        selection = select(study, accept_secondary_capture=accept_secondary_capture, left_to_others=others)
        refusals = list(selection.refusals)
        knees: list[_Cut] = []
        renderings: dict[str, npt.NDArray[np.uint8]] = {}
        looks = list(selection.looks)
        for candidate in selection.candidates:
            try:
                image = load_display(candidate.instance, self.limits)
            except RefusalError as error:
                refusals.append(_with_source(error.refusal, candidate))
                looks.append(_unread(candidate, error.refusal))
                continue
            film = self.reader.examine(image, candidate, self.bundle.spec)
            renderings[image.source.sop_instance_uid] = (film.values * 255).round().astype(np.uint8)
            refusals += film.refusals
            knees += [_Cut(knee, image.source, self._cut_for_pain(film, knee)) for knee in film.knees]
            looks.append(film.look)
        scored, unlike = self._findings(knees, looks)
        mr = score_mr(study, self.slices, self.limits)
        of_mr = {instance.sop_instance_uid for instance in mr_instances(study)} if self.slices else set()
        films = (source_of(instance) for instance in study.instances if instance.sop_instance_uid not in of_mr)
        return StudyFindings(
            study_instance_uid=study.study_instance_uid,
            knees=tuple(scored),
            volumes=mr.volumes,
            refusals=(*refusals, *unlike, *mr.refusals),
            radiographs=selection.radiographs,
            mr_images=mr.images,
            models=self.identities,
            looked_at=tuple(sorted((*films, *looked_at(mr)), key=lambda image: image.sop_instance_uid)),
            renderings=renderings,
            looks=tuple(sorted((*looks, *mr.looks), key=lambda look: look.source.sop_instance_uid)),
        )

    def _cut_for_pain(self, film: ExaminedFilm, knee: FoundKnee) -> npt.NDArray[np.uint8] | None:
        return None if self.pain is None else film.cut(knee, self.bundle.spec, self.pain.spec)

    def _findings(self, cuts: list[_Cut], looks: list[FilmLook]) -> tuple[list[KneeFinding], list[Refusal]]:
        """The knees that are graded, and refusals of those that are unlike the training ones; `looks` are completed."""
        if not cuts:
            return [], []
        crops = np.stack([cut.knee.crop for cut in cuts])[:, None]
        prediction = self.bundle.predict(torch.from_numpy(crops))
        knees, refusals = [], []
        for number, cut in enumerate(cuts):
            refusal = self._unlike(cut, prediction, number, looks)
            if refusal is None:
                knees.append(self._finding(cut, prediction, number))
            else:
                refusals.append(refusal)
        return knees, refusals

    def _unlike(self, cut: _Cut, prediction: Prediction, number: int, looks: list[FilmLook]) -> Refusal | None:
        limit = self.bundle.manifest.unlike_limit
        if limit is None or not prediction.unlike:
            return None
        score, source = prediction.unlike[number], cut.source.sop_instance_uid
        unfit = unlike_training(score, limit)
        place = next(n for n, look in enumerate(looks) if look.source.sop_instance_uid == source)
        looks[place] = asked(looks[place], cut.knee.side, score, limit)
        return None if unfit is None else Refusal(*unfit, source, cut.knee.side)

    def _finding(self, cut: _Cut, prediction: Prediction, number: int) -> KneeFinding:
        finding, values = prediction.findings[number], prediction.maps[number]
        return KneeFinding(
            side=cut.knee.side,
            source=cut.source,
            box=cut.knee.box,
            kl=finding,
            model=self.bundle.manifest.identity(),
            saliency=Saliency(to_source(values, mirrored=cut.knee.mirrored), cut.knee.box),
            evidence=cut.knee.evidence,
            spacing=cut.knee.spacing,
            pain=self._pain(cut, finding),
        )

    def _pain(self, cut: _Cut, kl: KLFinding) -> PainFinding | None:
        if self.pain is None or cut.for_pain is None:
            return None
        return self.pain.predict(cut.for_pain[None], [cut.knee.side], [kl.grade])[0]


def _unread(candidate: Candidate, refusal: Refusal) -> FilmLook:
    step = Step("Pixels", f"{refusal.code}: {refusal.reason}", passed=False)
    return FilmLook(source_of(candidate.instance), candidate.evidence, (*candidate.steps, step))


def _with_source(refusal: Refusal, candidate: Candidate) -> Refusal:
    if refusal.source is not None:
        return refusal
    return Refusal(refusal.code, refusal.reason, candidate.instance.sop_instance_uid, refusal.side)
