"""A study in, its findings out: selection, pixels, knees and sides, preprocessing, networks, explanation.

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
from inference.films import FilmReader, FoundKnee
from inference.finder import Finder
from inference.findings import FilmLook, KneeFinding, ModelIdentity, Refusal, Saliency, SourceImage, Step, StudyFindings
from inference.limits import DEFAULT_LIMITS, Limits
from inference.markers import MarkerReader
from inference.pixels import load_display
from inference.reading import StudyInput
from inference.studies import Candidate, select, source_of


@dataclass(frozen=True, eq=False)
class Predictor:
    """Scores studies with the bundles it was given; `reader` finds knees and letters on films."""

    bundle: Bundle
    reader: FilmReader
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def load(
        cls,
        folders: Sequence[Path],
        *,
        threads: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
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
        return cls(bundles[0], FilmReader(Finder.load(), MarkerReader.load()), limits)

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
        knees: list[tuple[FoundKnee, SourceImage]] = []
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
            knees += [(knee, image.source) for knee in film.knees]
            looks.append(film.look)
        return StudyFindings(
            study_instance_uid=study.study_instance_uid,
            knees=self._findings(knees),
            refusals=tuple(refusals),
            radiographs=selection.radiographs,
            models=self.identities,
            looked_at=tuple(source_of(instance) for instance in study.instances),
            renderings=renderings,
            looks=tuple(sorted(looks, key=lambda look: look.source.sop_instance_uid)),
        )

    def _findings(self, knees: list[tuple[FoundKnee, SourceImage]]) -> tuple[KneeFinding, ...]:
        if not knees:
            return ()
        crops = np.stack([knee.crop for knee, _ in knees])[:, None]
        prediction = self.bundle.predict(torch.from_numpy(crops))
        model = self.identities[0]
        return tuple(
            KneeFinding(
                side=knee.side,
                source=source,
                box=knee.box,
                kl=finding,
                model=model,
                saliency=Saliency(to_source(values, mirrored=knee.mirrored), knee.box),
                evidence=knee.evidence,
                spacing=knee.spacing,
            )
            for (knee, source), finding, values in zip(knees, prediction.findings, prediction.maps, strict=True)
        )


def _unread(candidate: Candidate, refusal: Refusal) -> FilmLook:
    step = Step("Pixels", f"{refusal.code}: {refusal.reason}", passed=False)
    return FilmLook(source_of(candidate.instance), candidate.evidence, (*candidate.steps, step))


def _with_source(refusal: Refusal, candidate: Candidate) -> Refusal:
    if refusal.source is not None:
        return refusal
    return Refusal(refusal.code, refusal.reason, candidate.instance.sop_instance_uid, refusal.side)
