"""Which series of a study is the one that a model reads, of which knee; every other one with the reason. No torch.

Every stack of slices is asked one question after the other; the first refusal ends it. docs/mri-preprocessing.md tells
the rules.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydicom.dataset import Dataset

from inference.anatomy import decide_anatomy
from inference.errors import RefusalError
from inference.findings import Evidence, Refusal, RefusalCode, Side
from inference.headers import texts
from inference.instances import Instance
from inference.laterality import SideDecision, decide_side
from inference.mr_geometry import Place, VolumeGeometry, arrange, place_of, plane_of
from inference.mr_pieces import REASON, are_pieces
from inference.mr_sequences import MRSequence, decide_sequence, described_plane, not_an_original
from inference.mr_stacks import MRSlice, Stack, stacks_of
from inference.sides import BOTH
from inference.studies import derived_image, is_own_result

FEWEST_SLICES = 11
_ORIGINAL_KNEE = 2  # questions passed by an original series that its header does not say to be of another part
_SIDE_TEXTS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_SIDE_KEYWORDS = ("ImageLaterality", "Laterality", "FrameLaterality", *_SIDE_TEXTS)
_STUDY_TEXTS = frozenset({"StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription"})
# "sag" is sagittal here; without its accent the Turkish word for right ("sağ") cannot be told from it.
_SAGITTAL = re.compile(r"(?<![^\W\d_])sag(?![^\W\d_])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class MRSeries:
    """A series that may be scored: `slices` in the order of `geometry`.

    `chosen_by` is "description" or "timing"; `evidence` is about anatomy, plane, sequence, slices and side.
    """

    series_instance_uid: str
    study_instance_uid: str
    name: str
    sequence: MRSequence
    side: Side
    slices: tuple[MRSlice, ...]
    geometry: VolumeGeometry
    chosen_by: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, eq=False)
class PassedOver:
    """A series that is not taken, or one stack of it. `refusal` is None where another one of that knee was better.

    `step` counts the questions that it passed: the refusal of a study is that of the series which came farthest.
    `side` is set where it is a refused series of the sequence that was wanted, and says of which knee.
    """

    series_instance_uid: str
    name: str
    reason: str
    refusal: RefusalCode | None
    evidence: tuple[Evidence, ...]
    step: int
    side: Side | None = None


@dataclass(frozen=True, eq=False)
class SeriesSelection:
    """`chosen`: at most one series a knee, left before right. `passed_over`: all others, each with its reason."""

    sequence: MRSequence
    chosen: tuple[MRSeries, ...]
    passed_over: tuple[PassedOver, ...]

    @property
    def refusal(self) -> Refusal | None:
        """Why nothing was chosen, by the series that came farthest; None where one was, or no MR series is there."""
        refused = [other for other in self.passed_over if other.refusal is not None]
        if self.chosen or not refused:
            return None
        farthest = max(refused, key=lambda other: other.step)
        if farthest.refusal is None:
            return None
        return Refusal(farthest.refusal, farthest.reason)


def select_series(instances: Iterable[Instance], sequence: MRSequence, *, side: Side | None = None) -> SeriesSelection:
    """The series of one sequence among the instances of one study, one for each knee; pure, in a stable order.

    Args:
        instances: of one study; other SOP classes and Genu's own results are passed over in silence.
        sequence: what is wanted.
        side: what somebody who knows says of the side (a table, a person); a header that says another is refused.

    Of several series of a knee one that its description names is taken before one known by its timing, and of rescans
    the last.
    """
    found: list[MRSeries] = []
    passed: list[PassedOver] = []
    for stack in stacks_of(one for one in instances if not is_own_result(one.header)):
        judged = _judge(stack, sequence, side)
        if isinstance(judged, MRSeries):
            found.append(judged)
        else:
            passed.append(judged)
    found, doubtful = _of_study_only(found)
    found, pieces = _whole(found)
    chosen = []
    for knee in (Side.LEFT, Side.RIGHT):
        ranked = sorted((series for series in found if series.side is knee), key=_rank)
        chosen += ranked[-1:]
        passed += [_second_best(series, ranked[-1]) for series in ranked[:-1]]
    return SeriesSelection(sequence, tuple(chosen), _together([*passed, *doubtful, *pieces]))


def _judge(stack: Stack, wanted: MRSequence, stated: Side | None) -> MRSeries | PassedOver:
    asked = _Asked(stack, wanted, stated)
    try:
        return asked.answer()
    except RefusalError as error:
        code, reason = error.refusal.code, error.refusal.reason
        knee = _Asked(stack, wanted, stated).knee() if asked.step >= _ORIGINAL_KNEE else None
        return PassedOver(stack.series_instance_uid, stack.name, reason, code, tuple(asked.evidence), asked.step, knee)


class _Asked:
    """One stack and the questions put to it; each raises RefusalError when the answer ends it."""

    def __init__(self, stack: Stack, wanted: MRSequence, stated: Side | None) -> None:
        self.stack, self.wanted, self.stated = stack, wanted, stated
        self.header = stack.slices[0].header
        self.evidence: list[Evidence] = []
        self.step = 0

    def answer(self) -> MRSeries:
        for question in (self._original, self._elsewhere, self._count):
            question()
            self.step += 1
        places = self._plane()
        self.step += 1
        by = self._sequence()
        self.step += 1
        geometry, order = arrange(places)
        self.step += 1
        side = self._side()
        self.step += 1
        self._knee()
        return MRSeries(
            series_instance_uid=self.stack.series_instance_uid,
            study_instance_uid=self.stack.slices[0].instance.study_instance_uid,
            name=self.stack.name,
            sequence=self.wanted,
            side=side,
            slices=tuple(self.stack.slices[index] for index in order),
            geometry=geometry,
            chosen_by=by,
            evidence=tuple(self.evidence),
        )

    def knee(self) -> Side | None:
        """Whose knee it is, of a series that is the one wanted but for what it was refused for; else None."""
        try:
            self._plane()
            self._sequence()
            return self._side()
        except RefusalError:
            return None

    def _original(self) -> None:
        reason = derived_image(self.header) or not_an_original(self.header)
        if reason is not None:
            reason = reason.replace("an original radiograph", "an original series")
            raise RefusalError(RefusalCode.DERIVED_IMAGE, reason)

    def _elsewhere(self) -> None:
        """Refused here only where the header names another part of the body; that it names a knee is asked last."""
        anatomy = decide_anatomy(self.header)
        self.evidence += anatomy.evidence
        if anatomy.refusal is not None and any(e.supports != "knee" for e in anatomy.evidence):
            raise RefusalError(*anatomy.refusal)

    def _count(self) -> None:
        slices = len(self.stack.slices)
        if slices < FEWEST_SLICES:
            what = f"{slices} slice{'s' if slices > 1 else ''}"
            reason = f"The series has {what} in one stack; at least {FEWEST_SLICES} are needed. Send the whole series."
            raise RefusalError(RefusalCode.TOO_FEW_SLICES, reason)
        self.evidence.append(Evidence("slices", "number of slices", str(slices), "a volume"))

    def _plane(self) -> list[Place]:
        places = [place_of(one.header, one.instance.sop_instance_uid) for one in self.stack.slices]
        plane, wanted = plane_of(places[0]), self.wanted.plane
        said = plane.value if plane is not None else "oblique"
        self.evidence.append(Evidence("plane", "ImageOrientationPatient", said, said))
        if plane is not wanted:
            reason = f"By ImageOrientationPatient the slices are {said}; the {self.wanted.wording} series is wanted."
            raise RefusalError(RefusalCode.WRONG_PLANE, reason)
        described = described_plane(self.header)
        if described is not None and described[0] is not wanted:
            reason = (
                f"{described[1]} says {described[0].value}, but by ImageOrientationPatient the slices are {said}. "
                "Correct the one that is wrong."
            )
            raise RefusalError(RefusalCode.WRONG_PLANE, reason)
        return places

    def _sequence(self) -> str:
        decision = decide_sequence(self.header, self.wanted)
        self.evidence += decision.evidence
        if decision.refusal is not None:
            raise RefusalError(*decision.refusal)
        return decision.by

    def _side(self) -> Side:
        decisions = [decide_side(header) for header in _side_headers(self.stack)]
        self.evidence += dict.fromkeys(e for decision in decisions for e in decision.evidence)
        for decision in decisions:
            if decision.refusal is not None:
                raise RefusalError(*decision.refusal)
        stated = {decision.stating.side for decision in decisions if decision.stating.side is not None}
        if len(stated) > 1:
            raise RefusalError(RefusalCode.SIDE_CONTRADICTORY, "The slices of the series name different sides.")
        said = stated.pop() if stated else None
        if self.stated is not None:
            return self._given(self.stated, said, decisions)
        if said is None:
            reason = (
                "Neither laterality attributes nor descriptions say which knee this is. Set Laterality, or write the "
                "side into the Series Description, and send the series again."
            )
            raise RefusalError(RefusalCode.SIDE_UNKNOWN, reason)
        if said == BOTH:
            reason = "The header says both knees; a series of one knee is wanted. Send each knee as its own series."
            raise RefusalError(RefusalCode.SIDE_UNKNOWN, reason)
        return Side(said)

    def _given(self, given: Side, said: str | None, decisions: Sequence[SideDecision]) -> Side:
        self.evidence.append(Evidence("side", "given", given.value, given.value))
        hints = {hint for decision in decisions for hint in decision.stating.hinted}
        if said not in (None, given) or given.other in hints:
            reason = f"The side is given as {given.value}, but the header says {said or given.other.value}."
            raise RefusalError(RefusalCode.SIDE_CONTRADICTORY, reason)
        return given

    def _knee(self) -> None:
        anatomy = decide_anatomy(self.header)
        if anatomy.refusal is not None and self.stated is None:
            raise RefusalError(*anatomy.refusal)


def _side_headers(stack: Stack) -> list[Dataset]:
    """One header for each way in which slices of the stack speak of the side; nearly always one."""
    different: dict[tuple[tuple[str, ...], ...], Dataset] = {}
    for one in stack.slices:
        different.setdefault(tuple(texts(one.header, keyword) for keyword in _SIDE_KEYWORDS), one.header)
    return [_for_side(header) for header in different.values()]


def _for_side(header: Dataset) -> Dataset:
    """A copy without what misleads: "SAG" in a description, and Patient Orientation, which is a film's.

    Its sequences are those of the header: only attributes are set anew.
    """
    plain = Dataset()
    plain.update(header)
    if "PatientOrientation" in plain:
        del plain["PatientOrientation"]
    for keyword in (*_SIDE_TEXTS, *_STUDY_TEXTS):
        if found := texts(header, keyword):
            setattr(plain, keyword, [_SAGITTAL.sub(" ", text) for text in found])
    return plain


def _of_study_only(found: list[MRSeries]) -> tuple[list[MRSeries], list[PassedOver]]:
    """A side that only the study's text names is not believed where another series of the study names the other."""
    named = {series.side for series in found if not _by_study(series)}
    good = [series for series in found if not (_by_study(series) and series.side.other in named)]
    reason = "Only the study's description names the side, and another series of the study is of the other knee."
    doubtful = [
        PassedOver(series.series_instance_uid, series.name, reason, RefusalCode.SIDE_UNKNOWN, series.evidence, 6)
        for series in found
        if series not in good
    ]
    return good, doubtful


def _whole(found: list[MRSeries]) -> tuple[list[MRSeries], list[PassedOver]]:
    """Series without those that make one volume with another one of the same knee."""
    pairs = ((one, other) for one, other in combinations(found, 2) if one.side is other.side)
    parts = [one for pair in pairs if are_pieces(pair[0].slices, pair[1].slices) for one in pair]
    pieces = [
        PassedOver(
            one.series_instance_uid, one.name, REASON, RefusalCode.INCONSISTENT_GEOMETRY, one.evidence, 7, one.side
        )
        for one in found
        if one in parts
    ]
    return [one for one in found if one not in parts], pieces


def _by_study(series: MRSeries) -> bool:
    sources = {e.source for e in series.evidence if e.about == "side" and e.supports == series.side.value}
    return bool(sources) and sources <= _STUDY_TEXTS


def _rank(series: MRSeries) -> tuple[bool, str, str, int, str]:
    header = series.slices[0].header
    times = [str(header.get(keyword) or "") for keyword in ("AcquisitionDateTime", "AcquisitionDate", "SeriesDate")]
    clock = next((str(header.get(k) or "") for k in ("SeriesTime", "AcquisitionTime") if header.get(k)), "")
    numbers = texts(header, "SeriesNumber")
    count = int(numbers[0]) if numbers and numbers[0].isascii() and numbers[0].isdigit() and len(numbers[0]) < 12 else 0
    return (
        series.chosen_by == "description",
        next((time[:8] for time in times if time), ""),
        clock,
        count,
        series.series_instance_uid,
    )


def _second_best(series: MRSeries, better: MRSeries) -> PassedOver:
    if better.chosen_by != series.chosen_by:
        reason = "Known by its timing only; another series of this knee is named by its description."
    else:
        reason = "Another series of this knee and sequence is the later one."
    return PassedOver(series.series_instance_uid, series.name, reason, None, series.evidence, 8)


def _together(passed: Sequence[PassedOver]) -> tuple[PassedOver, ...]:
    """Stacks of one series with one reason are told once: nineteen times of one slice, say."""
    once: dict[tuple[str, str], PassedOver] = {}
    for other in passed:
        once.setdefault((other.series_instance_uid, other.reason), other)
    return tuple(sorted(once.values(), key=lambda other: (other.series_instance_uid, other.name)))
