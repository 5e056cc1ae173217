"""What a DICOM header says of the person, as models for knee MRI take it: age, sex, height, weight, BMI. No torch.

Values that cannot be are missing, never bent to fit; so are those that differ within a series. What no header ever says
(joint space width, KL grade, WOMAC, injuries, surgery) is imputed by the network's own median, as in training.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset

from inference.findings import Evidence
from inference.headers import controlled, texts
from inference.mr_findings import ClinicalValue

# Beyond these a value is a slip of the pen or a placeholder (0, 1, 999). Years, metres, kilograms, kg/m2.
PLAUSIBLE = {"age": (10.0, 110.0), "height": (1.0, 2.3), "weight": (25.0, 300.0), "bmi": (10.0, 80.0)}
_AGE = re.compile(r"(\d{1,3})([YMWD])")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_DATES = ("AcquisitionDate", "StudyDate", "SeriesDate", "AcquisitionDateTime")
_SEX = {"M": 0.0, "F": 1.0}
ABOUT = "clinical"


@dataclass(frozen=True)
class Clinical:
    """`known`: the variables that the header says, each once; `evidence`: where, and why others are missing.

    No evidence holds a value of the person: only which attribute spoke, and whether it could be used.
    """

    known: tuple[ClinicalValue, ...]
    evidence: tuple[Evidence, ...]


def read_clinical(headers: Iterable[Dataset]) -> Clinical:
    """The clinical variables of a series, from the headers of all of its instances.

    Age is Patient's Age, else whole years from Patient's Birth Date to the day of the acquisition. A Patient's Size of
    100 to 230 is taken for centimetres: nobody is that tall in metres. BMI follows from height and weight.
    """
    everyone = list(headers)
    known: dict[str, ClinicalValue] = {}
    evidence: list[Evidence] = []
    for name, read in _READERS:
        found = {answer for header in everyone if (answer := read(header)) is not None}
        values = {answer.value for answer in found}
        if not found:
            continue
        sources = " and ".join(sorted({answer.source for answer in found}))
        if len(values) > 1:
            evidence.append(Evidence(ABOUT, sources, "different values within the series", "missing"))
        elif (value := values.pop()) is None:
            evidence.append(Evidence(ABOUT, sources, "a value that cannot be", "missing"))
        else:
            known[name] = ClinicalValue(name, value, sources)
            evidence.append(Evidence(ABOUT, sources, "a value", name))
    if "height" in known and "weight" in known:
        bmi = known["weight"].value / known["height"].value ** 2
        sources = f"{known['weight'].source} and {known['height'].source}"
        if _is_plausible("bmi", bmi):
            known["bmi"] = ClinicalValue("bmi", bmi, sources)
            evidence.append(Evidence(ABOUT, sources, "values", "bmi"))
        else:
            evidence.append(Evidence(ABOUT, sources, "values that do not fit each other", "missing"))
            del known["height"], known["weight"]
    return Clinical(tuple(known.values()), tuple(evidence))


@dataclass(frozen=True)
class _Answer:
    """`value` is None where something stands there that cannot be used."""

    value: float | None
    source: str


def _age(header: Dataset) -> _Answer | None:
    if stated := texts(header, "PatientAge"):
        match = _AGE.fullmatch(stated[0].upper()) if len(stated) == 1 else None
        years = int(match[1]) / _PER_YEAR[match[2]] if match else math.nan
        return _Answer(years if _is_plausible("age", years) else None, "PatientAge")
    born = _day(header, "PatientBirthDate")
    if not texts(header, "PatientBirthDate"):
        return None
    keyword, taken = next(((key, day) for key in _DATES if (day := _day(header, key))), ("", None))
    source = f"PatientBirthDate and {keyword}" if keyword else "PatientBirthDate"
    if born is None or taken is None:
        return _Answer(None, source)
    years = float(taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day)))
    return _Answer(years if _is_plausible("age", years) else None, source)


def _sex(header: Dataset) -> _Answer | None:
    stated = texts(header, "PatientSex")
    return _Answer(_SEX.get(controlled("\\".join(stated))), "PatientSex") if stated else None


def _height(header: Dataset) -> _Answer | None:
    value = _number(header, "PatientSize")
    if value is None:
        return None
    metres, source = (value / 100, "PatientSize in centimetres") if 100 <= value <= 230 else (value, "PatientSize")
    return _Answer(metres if _is_plausible("height", metres) else None, source)


def _weight(header: Dataset) -> _Answer | None:
    value = _number(header, "PatientWeight")
    return None if value is None else _Answer(value if _is_plausible("weight", value) else None, "PatientWeight")


_READERS: tuple[tuple[str, Callable[[Dataset], _Answer | None]], ...] = (
    ("age", _age),
    ("sex", _sex),
    ("height", _height),
    ("weight", _weight),
)


def _is_plausible(name: str, value: float) -> bool:
    low, high = PLAUSIBLE[name]
    return low <= value <= high


def _number(header: Dataset, keyword: str) -> float | None:
    """None where nothing stands there; what is no number, or several, is NaN, which no range holds."""
    found = texts(header, keyword)
    if not found:
        return None
    try:
        return float("\\".join(found))
    except ValueError:
        return math.nan


def _day(header: Dataset, keyword: str) -> date | None:
    found = texts(header, keyword)
    match = _DATE.match(found[0]) if found else None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None
