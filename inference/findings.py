"""The word list of the whole house: frozen result types, with units and source UIDs. Imports nothing of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from inference.mr_findings import VolumeFinding


class Side(StrEnum):
    """Laterality of one knee, as in DICOM (0020,0062): the patient's side."""

    LEFT = "L"
    RIGHT = "R"

    @property
    def other(self) -> "Side":
        """The opposite knee."""
        return Side.RIGHT if self is Side.LEFT else Side.LEFT


class RefusalCode(StrEnum):
    """Why something was not scored. The values are a contract: results.jsonl, reports, `genu status`."""

    NOT_A_KNEE = "not_a_knee"
    NO_FRONTAL_VIEW = "no_frontal_view"
    VIEW_UNKNOWN = "view_unknown"
    SIDE_UNKNOWN = "side_unknown"
    SIDE_CONTRADICTORY = "side_contradictory"
    NO_KNEE_FOUND = "no_knee_found"
    FILM_TURNED = "film_turned"
    KNEE_CUT_OFF = "knee_cut_off"
    KNEE_TOO_SMALL = "knee_too_small"
    POOR_EXPOSURE = "poor_exposure"
    METAL = "metal_or_implant"
    CAST = "cast_or_brace"
    UNLIKE_TRAINING = "unlike_training_knees"
    DERIVED_IMAGE = "derived_image"
    FOR_PROCESSING = "for_processing"
    WRONG_PLANE = "wrong_plane"
    WRONG_SEQUENCE = "wrong_sequence"
    TOO_FEW_SLICES = "too_few_slices"
    INCONSISTENT_GEOMETRY = "inconsistent_geometry"
    UNSUPPORTED_SOP_CLASS = "unsupported_sop_class"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    NO_PIXEL_DATA = "no_pixel_data"
    UNDECODABLE_PIXELS = "undecodable_pixels"
    UNREADABLE = "unreadable"
    IDENTITY_CONTRADICTORY = "identity_contradictory"


class StudyStatus(StrEnum):
    """The outcome of one study. The values are a contract: results.jsonl."""

    SCORED = "scored"
    REFUSED = "refused"
    NOTHING_TO_SCORE = "nothing_to_score"
    FAILED = "failed"


@dataclass(frozen=True)
class Refusal:
    """One coded refusal.

    `reason` is a full English sentence in ASCII that names values found in the header but never patient identity;
    `source` is the SOP Instance UID of the image concerned, None when the whole study is meant; `side` is set when one
    knee of an image is meant.
    """

    code: RefusalCode
    reason: str
    source: str | None = None
    side: Side | None = None


@dataclass(frozen=True)
class Evidence:
    """One reason for a decision: where it was read, what stood there, and what it speaks for.

    `about` is "anatomy", "view" or "side"; `source` a DICOM keyword or "pixels"; `value` what stood there (coded or
    controlled values only, never free text that could carry identity); `supports` for example "knee", "frontal", "L".
    """

    about: str
    source: str
    value: str
    supports: str


@dataclass(frozen=True)
class SourceImage:
    """One frame that was looked at."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    rows: int
    columns: int
    frame: int | None = None  # 1-based, as in Referenced Frame Number; None for a single-frame image


@dataclass(frozen=True)
class Spacing:
    """The size of one pixel in millimetres, and where it holds; both sizes are None for the kind "none".

    "calibrated": in the patient, at the depth that was calibrated. "detector": at the detector or the scanned film,
    not corrected for magnification. "unknown origin": nobody says which. `source` names attributes, never their text.
    """

    kind: Literal["calibrated", "detector", "unknown origin", "none"]
    rows_mm: float | None  # between the centres of neighbouring rows, as the first value of Pixel Spacing
    columns_mm: float | None
    source: str

    @property
    def lengths(self) -> tuple[float, float] | None:
        """(rows_mm, columns_mm) where they are lengths in the patient, else None: what is told in millimetres."""
        if self.kind != "calibrated" or self.rows_mm is None or self.columns_mm is None:
            return None
        return self.rows_mm, self.columns_mm


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in source pixel coordinates: (0, 0) is the upper left corner of the upper left pixel.

    `left`/`right` count columns, `top`/`bottom` rows, both may be fractional and may reach outside of the image
    (outside is filled with the padding value).
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Extent along the columns, in source pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent along the rows, in source pixels."""
        return self.bottom - self.top

    def clipped(self, rows: int, columns: int) -> "Box":
        """The part of the box inside of an image of this size."""
        return Box(
            left=min(max(self.left, 0.0), float(columns)),
            top=min(max(self.top, 0.0), float(rows)),
            right=min(max(self.right, 0.0), float(columns)),
            bottom=min(max(self.bottom, 0.0), float(rows)),
        )


@dataclass(frozen=True)
class ModelIdentity:
    """Which trained model spoke.

    `device_uid` is derived from the weights (one Device UID per trained model); `digest` is the SHA-256 over the
    bundle's contents in hex; `synthetic` is True for random or synthetic stand-ins, whose output must say so.
    """

    name: str
    version: str
    task: str  # "kl" | "pain" | "womac_pain" | "jsn_progression"
    device_uid: str
    digest: str
    parameters: str = ""  # algorithm parameters for (111002, DCM), for example "temperature=1.13"
    synthetic: bool = False

    @property
    def key(self) -> str:
        """The same for the same answers: bundle and parameters, among them what finds the knees."""
        return f"{self.digest} {self.parameters}"


@dataclass(frozen=True)
class KLFinding:
    """Kellgren-Lawrence grade of one knee.

    `grade` 0..4; `probabilities` five values that sum to 1, calibrated; `expected` the mean grade; `conformal_set` the
    grades of a conformal set when the bundle carries one: neighbours, `grade` among them; `coverage`, 0..1, is the
    share of knees whose true grade is in theirs.
    """

    grade: int
    probabilities: tuple[float, float, float, float, float]
    expected: float
    conformal_set: tuple[int, ...] | None = None
    coverage: float | None = None

    @property
    def words(self) -> str:
        """For example "KL 2 (2-3, 90 %)"; without a set "KL 2"."""
        return f"KL {self.grade}" + (f" ({self.set_words})" if self.set_words else "")

    @property
    def set_words(self) -> str:
        """For example "2-3, 90 %", or "2, 90 %" for a set of one grade; empty without a set."""
        if not self.conformal_set or self.coverage is None:
            return ""
        low, high = min(self.conformal_set), max(self.conformal_set)
        return f"{low}{f'-{high}' if high > low else ''}, {100 * self.coverage:g} %"


@dataclass(frozen=True)
class PainFinding:
    """Pain of one knee as a model predicts it from the image; never what a patient said.

    `score`, `low` and `high` in points, 0 no pain to 10 worst pain; `low` to `high` is made to hold `coverage` of the
    scores that patients report. `model` said so, another one than that of the grade.
    """

    score: float
    low: float
    high: float
    coverage: float
    model: ModelIdentity


@dataclass(frozen=True, eq=False)
class Saliency:
    """Where the model looked: non-negative, 0..1, float32 of shape (h, w), stretched over `box` of the source image.

    `method` is "grad-cam", "class-activation" or "saliency" (CID 217). Already mirrored back where the model's input
    was mirrored: the first column lies at box.left.
    """

    values: npt.NDArray[np.float32]
    box: Box
    method: str = "grad-cam"


@dataclass(frozen=True, eq=False)
class KneeFinding:
    """All that was found on one knee of one image."""

    side: Side
    source: SourceImage
    box: Box
    kl: KLFinding
    model: ModelIdentity
    saliency: Saliency
    evidence: tuple[Evidence, ...] = ()
    spacing: Spacing | None = None  # None where nobody asked the header
    pain: PainFinding | None = None  # None without a bundle for it

    @property
    def models(self) -> tuple[ModelIdentity, ...]:
        """All models that spoke about this knee, that of the grade first."""
        return (self.model,) if self.pain is None else (self.model, self.pain.model)

    @property
    def synthetic(self) -> bool:
        """Whether any of them is a stand-in, whose output must say so."""
        return any(model.synthetic for model in self.models)


@dataclass(frozen=True)
class Step:
    """One question on the way to a decision: `answer` a sentence in ASCII, `passed` False where it ended there."""

    question: str
    answer: str
    passed: bool = True


@dataclass(frozen=True, eq=False)
class SeenKnee:
    """A place on a film that may be a knee, as the pixels show it.

    Scores are 0..1 (see `inference.finder.Sighting`); `side` once it was proven; `code` is None for a knee that was
    scored. `crop` is what the network's preprocessing was given, uint8 (S, S), None where it did not come so far.
    """

    box: Box
    score: float
    tilt: float
    fibula_right: float
    metal: float
    cast: float
    side: Side | None = None
    code: RefusalCode | None = None
    crop: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class SeenLetter:
    """A burned-in letter: what it names, whether it reads backwards, and its box in source pixels."""

    side: Side
    mirrored: bool
    box: Box


@dataclass(frozen=True, eq=False)
class FilmLook:
    """What was seen on one image, and the steps of the decision: for a person who asks why.

    `inverted` says that the grey values were turned round; `turned` and `other_view` are scores 0..1.
    """

    source: SourceImage
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[Step, ...] = ()
    knees: tuple[SeenKnee, ...] = ()
    letters: tuple[SeenLetter, ...] = ()
    inverted: bool = False
    turned: float = 0.0
    other_view: float = 0.0


@dataclass(frozen=True, eq=False)
class StudyFindings:
    """The result of one study: knees scored on films, knees scored on MR series, refusals, and what is needed to draw.

    `renderings` maps SOP Instance UIDs to uint8 arrays (rows, columns), the image as a reader would see it: of all
    scored images, and of refused ones that got as far as their pixels. `looked_at` lists all instances that were read,
    in a stable order, of an MR series the first image and those that a model read; `looks` tells of each image, and of
    each MR series, how it was decided.
    """

    study_instance_uid: str
    knees: tuple[KneeFinding, ...] = ()
    volumes: "tuple[VolumeFinding, ...]" = ()
    refusals: tuple[Refusal, ...] = ()
    radiographs: int = 0
    mr_images: int = 0
    models: tuple[ModelIdentity, ...] = ()
    looked_at: tuple[SourceImage, ...] = ()
    renderings: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=lambda: MappingProxyType({}))
    looks: tuple[FilmLook, ...] = ()

    @property
    def status(self) -> StudyStatus:
        """SCORED when any knee was; REFUSED when there was something to look at; else NOTHING_TO_SCORE.

        `radiographs` counts the instances that Genu is meant for (CR, DX, opted-in Secondary Capture, and files too
        broken to tell), `mr_images` MR images where a bundle for them serves, so that an MR or CT study without a
        model for it does not produce a refusal report.
        """
        if self.knees or self.volumes:
            return StudyStatus.SCORED
        return StudyStatus.REFUSED if self.radiographs or self.mr_images else StudyStatus.NOTHING_TO_SCORE
