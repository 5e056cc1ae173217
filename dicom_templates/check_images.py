"""The part of the checker that reads our pictures: heatmaps and refusal cards.

The caption that Image Comments claims is drawn again and compared with the pixels, so that a picture cannot say one
thing and show another.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_templates import codes
from dicom_templates.capture import CAPTION_SEPARATOR
from dicom_templates.card import EXPLAINED, SERIES_EXPLAINED, heading, image_laterality
from dicom_templates.card_drawing import FOOTER, FOUND, MORE, NOT_SCORED, REASON, REMEDY, SERIES_HEADING, shows
from dicom_templates.drawing import caption_band
from dicom_templates.identity import CARD_SERIES, RESEARCH_MARK, SIDE_WORDS, SYNTHETIC_MARK
from dicom_templates.mr_images import MR_CLASSES
from dicom_templates.pain import ORIGIN
from dicom_templates.patient import raw_text
from dicom_templates.set_words import SET_WORDS
from inference.findings import RefusalCode, Side

_PAIN = re.compile(rf"Predicted pain ([0-9.]+) of 10 \([0-9]+ % interval ([0-9.]+) to ([0-9.]+)\), {ORIGIN}")
_CODES = {concept.meaning: code for code, concept in codes.REFUSALS.items()}
_REASON = re.compile(rf"{REASON}(?:, (?P<side>RIGHT|LEFT) knee)?: (?P<meaning>.+)")

# What Genu's captions say of themselves: a patient may be called Knee, Right or Model, and have an ID like a digest.
_OWN_WORDING = re.compile(
    rf"(?:RIGHT|LEFT) KNEE   KL [0-4](?: {SET_WORDS})?   probability [01]\.[0-9]{{2}}"
    r"|Kellgren-Lawrence grade [0-4], expected grade [0-4]\.[0-9]{2}, predicted by a model from the image"
    rf"|{_PAIN.pattern}"
    rf"|Model (?=\S+ \S+, bundle)|, bundle [0-9a-f]{{12}}|{re.escape(RESEARCH_MARK)}|{re.escape(SYNTHETIC_MARK)}"
    rf"|^(?:(?:RIGHT|LEFT) KNEE |BOTH KNEES |MR SEQUENCE )?{NOT_SCORED}|^There is no AI result for .*$"
    r"|^A model for knee MRI has no result.*$"
    rf"|^{FOOTER}Genu|^{MORE}"
    rf"|^{REASON}.*$|^{FOUND}|^{REMEDY}.*$|^{re.escape(EXPLAINED)}$|^{re.escape(SERIES_EXPLAINED)}$",
    re.MULTILINE,
)
# Words of the fixed texts, which reasons are worded with too: a patient of this name tells nothing.
_OWN_WORDS = {
    word.casefold()
    for text in (
        *codes.REMEDIES.values(),
        *codes.SERIES_REMEDIES.values(),
        *(f"{row.meaning} {row.definition}" for row in codes.TABLE),
    )
    for word in re.findall(r"\w+", text)
}


def is_card(picture: Dataset) -> bool:
    """Whether a Secondary Capture of ours is a refusal card: its series tells."""
    return bool(picture.get("SeriesNumber") == CARD_SERIES.number)


def picture_complaints(picture: Dataset) -> list[str]:
    """All complaints about one heatmap or card."""
    return [*picture_basics(picture), *(_card(picture) if is_card(picture) else _heatmap(picture))]


def caption_of(picture: Dataset) -> list[str]:
    """The lines that Image Comments claims to be burned in."""
    return str(picture.get("ImageComments") or "").split(CAPTION_SEPARATOR)


def burned_grade(heatmap: Dataset) -> int | None:
    """The grade that the caption of a heatmap names, None when it names none."""
    caption = str(heatmap.get("ImageComments") or "")
    grades = [grade for grade in range(5) if f"KL {grade} " in caption]
    return grades[0] if len(grades) == 1 else None


def burned_pain(heatmap: Dataset) -> tuple[str, ...]:
    """Score, low and high of pain in tenths, as the caption of a heatmap names them; empty when it names none."""
    for line in caption_of(heatmap):
        if (match := _PAIN.fullmatch(line)) is not None:
            return match.groups()
    return ()


def burned_reasons(card: Dataset) -> list[tuple[Side | None, RefusalCode | None]]:
    """The knees and reasons that the caption of a card names; a reason is None where the words are not ours."""
    sides = {words: side for side, words in SIDE_WORDS.items()}
    matches = filter(None, map(_REASON.fullmatch, caption_of(card)))
    return [(sides.get(match["side"] or ""), _CODES.get(match["meaning"])) for match in matches]


def picture_basics(picture: Dataset, own: re.Pattern[str] = _OWN_WORDING) -> Iterator[str]:
    """What all pictures share; `own` matches what a caption says without telling anything of the patient."""
    expected = {"BurnedInAnnotation": "YES", "RecognizableVisualFeatures": "NO", "ConversionType": "WSD"}
    for keyword, value in expected.items():
        if picture.get(keyword) != value:
            yield f"{keyword} is {picture.get(keyword)!r}, must be {value}"
    if list(picture.get("ImageType") or [])[:2] != ["DERIVED", "SECONDARY"]:
        yield f"Image Type is {picture.get('ImageType')}, must begin with DERIVED, SECONDARY"
    if "PixelSpacing" in picture:
        yield "Pixel Spacing is present, but a scaled picture with a caption has none"
    if picture.get("LossyImageCompression") not in {"00", "01"}:
        yield "Lossy Image Compression is missing: it must be kept from the source"
    caption = "\n".join(caption_of(picture))
    if RESEARCH_MARK not in caption:
        yield f"the caption does not say {RESEARCH_MARK!r}"
    if is_synthetic(picture) and SYNTHETIC_MARK not in caption:
        yield f"the model is a stand-in but the caption does not say {SYNTHETIC_MARK!r}"
    yield from named_in(picture, own.sub("", caption))


def named_in(picture: Dataset, rest: str) -> Iterator[str]:
    """Complaints where the patient stands in `rest`: a caption without what Genu's captions say of themselves."""
    for keyword in ("PatientID", "PatientName"):
        value = raw_text(picture, keyword).decode("ascii", "replace")
        if _stands_in(value, rest) or any(
            _stands_in(part, rest) for part in value.split("^") if not is_card(picture) or not _is_own(part)
        ):
            yield f"the caption holds the value of {keyword}"


def derivation(picture: Dataset) -> Iterator[str]:
    """How it was made, of what, and by whom."""
    methods = {code.value for code in codes.SALIENCY_METHODS.values()}
    derivations = {item.get("CodeValue") for item in picture.get("DerivationCodeSequence", ())}
    if not derivations & methods:
        yield f"Derivation Code Sequence holds {sorted(map(str, derivations))}, none of CID 217 {sorted(methods)}"
    if not picture.get("SourceImageSequence"):
        yield "Source Image Sequence is missing or empty"
    if not picture.get("ContributingEquipmentSequence"):
        yield "Contributing Equipment Sequence names no algorithm"


def _heatmap(heatmap: Dataset) -> Iterator[str]:
    """The side and the grade must be the same in code, in text and in the pixels."""
    yield from derivation(heatmap)
    if heatmap.get("Laterality") not in set(Side):
        yield f"Laterality is {heatmap.get('Laterality')!r}, must be R or L"
        return
    texts = {
        "Image Comments (the caption)": heatmap.get("ImageComments"),
        "Derivation Description": heatmap.get("DerivationDescription"),
        "Series Description": heatmap.get("SeriesDescription"),
    }
    yield from one_side(Side(heatmap.Laterality), texts)
    if burned_grade(heatmap) is None:
        yield "the caption names no grade 'KL 0' to 'KL 4'"
    pixels, lines = _pixels(heatmap), caption_of(heatmap)
    band = caption_band(lines, pixels.shape[1]) if pixels.size else pixels
    if not pixels.size or band.shape[0] > len(pixels) or not np.array_equal(pixels[len(pixels) - len(band) :], band):
        yield "the pixels do not show the caption that Image Comments gives"


def _card(card: Dataset) -> Iterator[str]:
    """Reasons of the table, each with its remedy, about the knee of Image Laterality, the same in the pixels."""
    lines, reasons = caption_of(card), burned_reasons(card)
    sources = {str(item.get("ReferencedSOPClassUID")) for item in card.get("SourceImageSequence", ())}
    of_series = bool(sources) and sources <= MR_CLASSES
    advice = [codes.SERIES_REMEDIES] if of_series else [codes.REMEDIES]
    advice += [] if sources else [codes.SERIES_REMEDIES]  # of the study: of films, or of MR series
    if not reasons:
        yield "the caption of the card names no reason"
    for _, code in reasons:
        if code is None:
            yield "the caption of the card names a reason that is not in the table"
        elif not {REMEDY + remedies[code] for remedies in advice} & set(lines):
            yield f"the caption of the card does not say what to do about {code.value}"
    if not any(line.startswith(FOUND) for line in lines):
        yield "the caption of the card does not say what was found"
    sides, laterality = {side for side, _ in reasons}, str(card.get("ImageLaterality") or "")
    if laterality != image_laterality(sides) and not any(line.startswith(MORE) for line in lines):
        yield f"Image Laterality is {laterality!r}, the caption of the card is about {sorted(map(str, sides))}"
    if lines[0] != (SERIES_HEADING if of_series else heading(laterality)):
        yield f"the heading {lines[0]!r} does not fit Image Laterality {laterality!r}"
    if laterality in set(Side):
        own = "\n".join(line for line in lines if not line.startswith(FOUND))
        texts = {"Image Comments (the caption)": own, "Derivation Description": card.get("DerivationDescription")}
        yield from one_side(Side(laterality), texts)
    pixels = _pixels(card)
    if not pixels.size or not shows(pixels, lines):
        yield "the pixels do not show the caption that Image Comments gives"


def one_side(side: Side, texts: Mapping[str, object]) -> Iterator[str]:
    """Every text names the side of the code, and not the other one."""
    for name, value in texts.items():
        text = str(value or "")
        if SIDE_WORDS[side] not in text or SIDE_WORDS[side.other] in text:
            yield f"{name} does not name the side {SIDE_WORDS[side]} of the coded laterality {side.value}: {text!r}"


def _is_own(part: str) -> bool:
    return all(word.casefold() in _OWN_WORDS for word in re.findall(r"\w+", part))


def _stands_in(part: str, text: str) -> bool:
    """As a word of its own; initials tell nothing."""
    return len(part) > 2 and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _pixels(picture: Dataset) -> npt.NDArray[np.uint8]:
    """The picture as (rows, columns, 3); empty where the data set holds less than it says."""
    rows, columns = int(picture.get("Rows", 0)), int(picture.get("Columns", 0))
    data = picture.get("PixelData", b"")
    if not rows or not columns or len(data) < rows * columns * 3:
        return np.zeros((0, 0, 3), np.uint8)
    return np.frombuffer(data, dtype=np.uint8, count=rows * columns * 3).reshape(rows, columns, 3)


def is_synthetic(picture: Dataset) -> bool:
    """Whether the equipment says that a model is a stand-in."""
    items: Sequence[Dataset] = picture.get("ContributingEquipmentSequence", ())
    return any(SYNTHETIC_MARK in str(item.get("ContributionDescription", "")) for item in items)
