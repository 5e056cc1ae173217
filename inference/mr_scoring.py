"""Knee MRI of a study: its series chosen, prepared once, read by every bundle that wants them, and explained.

One series is in memory at a time; what stays of it are the slices that a bundle read, eight bits a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from inference.clinical import Clinical, read_clinical
from inference.errors import RefusalError
from inference.findings import Box, FilmLook, Refusal, Saliency, SourceImage
from inference.headers import first
from inference.limits import DEFAULT_LIMITS, Limits
from inference.mr_choice import choose, contradictory, mr_instances
from inference.mr_findings import Grid, SeenSlice, VolumeFinding
from inference.mr_geometry import place_of
from inference.mr_sequences import MRSequence
from inference.mr_series import MRSeries
from inference.pixels import voi
from inference.reading import StudyInput
from inference.slice_bundle import SliceBundle, SlicePrediction
from inference.slice_maps import ReadSlices
from inference.studies import contradictory_identity, source_of
from inference.volume_map import SliceMap
from inference.volumes import PreparedVolume, RawVolume, finish, read_volume

_SHOWN = (0.5, 99.5)  # percentiles where the header has no usable window, as for films
_HALF = 0.5  # of the peak: where its region ends
Rendering = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MRFindings:
    """What came of the MR images of a study; the fields of the same names in StudyFindings. `images` counts them.

    `named`: the images that refusals are about.
    """

    volumes: tuple[VolumeFinding, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    looks: tuple[FilmLook, ...] = ()
    images: int = 0
    named: tuple[SourceImage, ...] = ()


def score_mr(study: StudyInput, bundles: Sequence[SliceBundle], limits: Limits = DEFAULT_LIMITS) -> MRFindings:
    """Score every knee of every sequence that a bundle is made for.

    A series that cannot be read is refused with its reason; the others are scored all the same. Raises ResourceError.
    """
    instances = mr_instances(study)
    if not instances or not bundles:
        return MRFindings()
    if (contradiction := contradictory_identity(study)) is not None:
        return MRFindings(looks=contradictory(instances, contradiction), images=len(instances))
    choice = choose(instances, (bundle.manifest.volume.sequence for bundle in bundles))
    volumes: list[VolumeFinding] = []
    failed: dict[tuple[str, MRSequence], Refusal] = {}
    for selection in choice.selections:
        wanting = [bundle for bundle in bundles if bundle.manifest.volume.sequence is selection.sequence]
        for series in selection.chosen:
            try:
                volumes += _score_series(series, wanting, limits)
            except RefusalError as error:
                failed[series.series_instance_uid, selection.sequence] = _of_series(error.refusal, series)
    refusals = (*choice.refusals(), *failed.values())
    about = {refusal.source for refusal in refusals}
    return MRFindings(
        volumes=tuple(sorted(volumes, key=_order)),
        refusals=refusals,
        looks=choice.looks(failed),
        images=len(instances),
        named=tuple(source_of(one) for one in instances if one.sop_instance_uid in about),
    )


def _of_series(refusal: Refusal, series: MRSeries) -> Refusal:
    source = refusal.source or series.slices[0].instance.sop_instance_uid
    return Refusal(refusal.code, refusal.reason, source, series.side)


def _order(volume: VolumeFinding) -> tuple[str, str, str, str]:
    outcome = volume.outcome
    return volume.side.value, outcome.model.task, outcome.target, volume.sequence


def _score_series(series: MRSeries, bundles: Sequence[SliceBundle], limits: Limits) -> list[VolumeFinding]:
    """What each bundle finds; bundles of one VolumeSpec share the slices, those of one backbone what it sees."""
    shared = _Series(series, limits)
    found = []
    for bundle in sorted(bundles, key=lambda one: (one.manifest.volume.digest, one.network.backbone.digest)):
        prepared = shared.prepared(bundle)
        prediction = bundle.predict(prepared, shared.clinical.known, shared.seen(bundle, prepared))
        found.append(shared.finding(prepared.map, prediction))
    return found


@dataclass(eq=False)
class _Series:
    """One series while bundles look at it; holds the slices of one VolumeSpec at a time."""

    series: MRSeries
    limits: Limits
    renderings: dict[int, Rendering] = field(default_factory=dict)
    now: tuple[str, PreparedVolume] | None = None
    read: dict[str, ReadSlices] = field(default_factory=dict)

    def __post_init__(self) -> None:
        headers = {one.instance.sop_instance_uid: one.instance.header for one in self.series.slices}
        self.clinical: Clinical = read_clinical(headers.values())

    def prepared(self, bundle: SliceBundle) -> PreparedVolume:
        spec = bundle.manifest.volume
        if self.now is None or self.now[0] != spec.digest:
            self.now, self.read = None, {}
            raw = read_volume(self.series, spec, self.limits)
            self.renderings |= rendered(raw, self.series)
            volume = PreparedVolume(finish(raw, spec), raw.map, self.series.side, self.series.sequence, raw.digest)
            self.now = (spec.digest, volume)
        return self.now[1]

    def seen(self, bundle: SliceBundle, prepared: PreparedVolume) -> ReadSlices:
        digest = bundle.network.backbone.digest
        if digest not in self.read:
            self.read = {digest: bundle.read(prepared)}
        return self.read[digest]

    def finding(self, laid: SliceMap, prediction: SlicePrediction) -> VolumeFinding:
        series, geometry = self.series, laid.geometry
        merged = _merged(laid, prediction)
        slices = tuple(self._slice(laid, index, *read) for index, read in merged.items())
        # Compared on the pixels of the source: what lies beside of the image is no place in the patient.
        heights = [float(laid.resampled(values).max()) for values, _ in merged.values()]
        peak = int(np.argmax(heights if max(heights) > 0 else [one.attention for one in slices]))
        return VolumeFinding(
            side=series.side,
            series_instance_uid=series.series_instance_uid,
            sequence=series.sequence.wording,
            chosen_by=series.chosen_by,
            outcome=prediction.outcome,
            slices=slices,
            total=len(series.slices),
            grid=Grid(geometry.across, geometry.down, geometry.step, geometry.row_mm, geometry.column_mm),
            peak=peak,
            region=region(laid.resampled(merged[slices[peak].index][0])),
            evidence=(*series.evidence, *self.clinical.evidence),
        )

    def _slice(self, laid: SliceMap, index: int, values: npt.NDArray[np.float32], attention: float) -> SeenSlice:
        return SeenSlice(
            source=laid.sources[laid.indices.index(index)],
            index=index,
            position=place_of(self.series.slices[index].header).position,
            attention=attention,
            saliency=Saliency(laid.back(values), laid.box),
            rendering=self.renderings[index],
        )


def _merged(laid: SliceMap, prediction: SlicePrediction) -> dict[int, tuple[npt.NDArray[np.float32], float]]:
    """Map and attention of each source slice in the order of places; of one that was read twice the higher, the sum."""
    found = {}
    for index in sorted(set(laid.indices)):
        places = [place for place, other in enumerate(laid.indices) if other == index]
        found[index] = prediction.maps[places].max(axis=0), float(prediction.attention[places].sum())
    return found


def rendered(raw: RawVolume, series: MRSeries) -> dict[int, Rendering]:
    """The chosen slices as a reader sees them, by index in order of place: uint8, rows and columns of the source.

    By the window of the header; without a usable one by percentiles of all chosen slices, so that they look alike.
    """
    inside = raw.values if raw.padding is None else raw.values[~raw.padding]
    low, high = (float(value) for value in np.percentile(inside, _SHOWN))
    found: dict[int, Rendering] = {}
    for place, index in enumerate(raw.map.indices):
        header = series.slices[index].header
        # Its values were turned round when they were read, so its window would not fit.
        window = Dataset() if first(header, "PhotometricInterpretation") == "MONOCHROME1" else header
        image = np.ascontiguousarray(raw.map.turn.inverse(raw.values[place]), np.float32)
        found[index] = (voi(image, window, low, high) * 255).round().astype(np.uint8)
    return found


def region(values: npt.NDArray[np.float32]) -> Box:
    """The box around the peak of a map (rows, columns) of a source image, in its pixels: all that hangs together with
    it and reaches half of its height; the whole image where the map is empty."""
    rows, columns = values.shape
    peak = int(values.argmax())
    row, column = divmod(peak, columns)
    height = float(values[row, column])
    if height <= 0:
        return Box(0.0, 0.0, float(columns), float(rows))
    _, labels, found, _ = cv2.connectedComponentsWithStats((values >= _HALF * height).astype(np.uint8), connectivity=4)
    left, top, width, tall = (int(value) for value in found[labels[row, column], :4])
    return Box(float(left), float(top), float(left + width), float(top + tall))


def looked_at(findings: MRFindings) -> tuple[SourceImage, ...]:
    """The images that were looked at, each once: the first of every series, those read, those that are refused."""
    sources = (*(look.source for look in findings.looks), *findings.named)
    once = {source.sop_instance_uid: source for source in sources}
    for volume in findings.volumes:
        for one in volume.slices:
            once.setdefault(one.source.sop_instance_uid, one.source)
    return tuple(once[uid] for uid in sorted(once))
