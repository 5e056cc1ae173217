"""Which MR series of a study are scored, why others are not, and what is said of each: refusals and looks. No torch.

A study has one refusal for each sequence that a bundle wants and nobody chose, that of the series which came farthest,
and one for each knee whose series of that sequence was refused; and one look a series, not one an image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference.findings import Evidence, FilmLook, Refusal, RefusalCode, Side, Step
from inference.instances import Instance
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries, PassedOver, SeriesSelection, select_series
from inference.mr_stacks import MR_CLASSES
from inference.reading import StudyInput
from inference.studies import READ, is_own_result, refused_step, source_of

SIDES = {Side.LEFT: "left", Side.RIGHT: "right"}
Failed = Mapping[tuple[str, MRSequence], Refusal]  # series and sequence whose pixels could not be read, and why


@dataclass(frozen=True, eq=False)
class Choice:
    """`instances`: all MR images of the study that are not Genu's own. `selections`: one for each sequence wanted."""

    instances: tuple[Instance, ...]
    selections: tuple[SeriesSelection, ...] = ()

    def refusals(self) -> tuple[Refusal, ...]:
        """Why which sequence, or which knee of it, is not scored; each reason once."""
        first = _first_images(self.instances)
        found = [refusal for selection in self.selections for refusal in _refusals(selection, first)]
        if self.selections and not found and not any(selection.chosen for selection in self.selections):
            reason = (
                "The enhanced MR object does not say of each frame what it shows (Per-Frame Functional Groups). "
                "Send it as the scanner made it."
            )
            found += [
                Refusal(RefusalCode.INCONSISTENT_GEOMETRY, reason, image.sop_instance_uid) for image in first.values()
            ]
        once = {(refusal.code, refusal.reason, refusal.side): refusal for refusal in reversed(found)}
        return tuple(refusal for refusal in found if once[refusal.code, refusal.reason, refusal.side] is refusal)

    def looks(self, failed: Failed) -> tuple[FilmLook, ...]:
        """One of each series, named by its first image: whether it was chosen for which sequence, else why not."""
        return tuple(
            self._look(series, image, failed) for series, image in sorted(_first_images(self.instances).items())
        )

    def _look(self, series: str, image: Instance, failed: Failed) -> FilmLook:
        steps, evidence = [READ], list[Evidence]()
        for selection in self.selections:
            for chosen in selection.chosen:
                if chosen.series_instance_uid == series:
                    steps += _chosen_steps(chosen, failed.get((series, selection.sequence)))
                    evidence += chosen.evidence
            for other in selection.passed_over:
                if other.series_instance_uid == series:
                    steps.append(_passed_step(selection.sequence, other))
                    evidence += other.evidence
        return FilmLook(source_of(image), tuple(dict.fromkeys(evidence)), tuple(steps))


def mr_instances(study: StudyInput) -> tuple[Instance, ...]:
    """The MR images of a study, without what Genu made of them."""
    return tuple(one for one in study.instances if one.sop_class_uid in MR_CLASSES and not is_own_result(one.header))


def choose(instances: Sequence[Instance], sequences: Iterable[MRSequence]) -> Choice:
    """Select series of every sequence; pure, in a stable order."""
    wanted = sorted(set(sequences))
    return Choice(tuple(instances), tuple(select_series(instances, sequence) for sequence in wanted))


def contradictory(instances: Sequence[Instance], refusal: Refusal) -> tuple[FilmLook, ...]:
    """Looks of a study that names two patients: no series of it is asked anything else."""
    steps = (READ, refused_step("Patient", refusal))
    return tuple(FilmLook(source_of(image), (), steps) for _, image in sorted(_first_images(instances).items()))


def _refusals(selection: SeriesSelection, first: Mapping[str, Instance]) -> list[Refusal]:
    refused = [other for other in selection.passed_over if other.refusal is not None]
    scored = {series.side for series in selection.chosen}
    found = []
    for side in Side:
        of_knee = [other for other in refused if other.side is side]
        if of_knee and side not in scored:
            found.append(_refusal(max(of_knee, key=lambda other: other.step), first))
    if not found and not scored and refused:
        found.append(_refusal(max(refused, key=lambda other: other.step), first))
    return found


def _refusal(other: PassedOver, first: Mapping[str, Instance]) -> Refusal:
    code = other.refusal or RefusalCode.WRONG_SEQUENCE
    return Refusal(code, other.reason, first[other.series_instance_uid].sop_instance_uid, other.side)


def _chosen_steps(series: MRSeries, refusal: Refusal | None) -> list[Step]:
    question = _question(series.sequence, series.name)
    steps = [Step(question, f"{len(series.slices)} slices, {SIDES[series.side]} knee, by {series.chosen_by}.")]
    return steps if refusal is None else [*steps, refused_step("Pixels", refusal)]


def _passed_step(sequence: MRSequence, other: PassedOver) -> Step:
    coded = f"{other.refusal.value}: {other.reason}" if other.refusal is not None else other.reason
    return Step(_question(sequence, other.name), coded, passed=False)


def _question(sequence: MRSequence, stack: str) -> str:
    name = sequence.wording
    return f"{name[:1].upper()}{name[1:]}{f', {stack}' if stack else ''}"


def _first_images(instances: Iterable[Instance]) -> dict[str, Instance]:
    """The first image of each series, in the order of SOP Instance UIDs."""
    first: dict[str, Instance] = {}
    for one in sorted(instances, key=lambda one: one.sop_instance_uid):
        first.setdefault(one.series_instance_uid, one)
    return first
