"""The tables of a made OAI, in the names of the real ones, with the dirt of the real ones.

Pipe-separated text; the case of files and columns varies; "1: Male", ".A: Not Expected", ".: Missing Form/Incomplete
Workbook" and blanks; repeated rows; readings of several projects, of which the preferred one counts. Nothing of it
changes what the rules must keep: a knee's truth is in the plan.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from training.synth_oai_plan import TABLES, VISITS, Participant, Scan
from training.synth_oai_truth import folder

_MISSING = (".: Missing Form/Incomplete Workbook", ".A: Not Expected", ".", "", " ", ".M: Missing")
_SIDE = {"R": ("1", "1: Right"), "L": ("2", "2: Left")}
_RACES = {0: "0: Other Non-white", 1: "1: White or Caucasian", 2: "2: Black or African American", 3: "3: Asian"}
_FIXED = tuple(f"JSW{place}" for place in range(150, 301, 25)) + tuple(f"LJSW{place}" for place in range(700, 901, 25))


def write_tables(people: Sequence[Participant], tables: Path, seed: int) -> dict[str, int]:
    """Write the tables; returns how many rows each has. The same plan and seed give the same files."""
    rng = np.random.default_rng((seed, 1_000_033))
    written = {"Enrollees": _write(tables / "Enrollees.txt", *_enrollees(people), 0.02, rng)}
    for visit in TABLES:
        lower = visit in ("01", "05")
        for name, rows in {
            f"AllClinical_ASCII/AllClinical{visit}": _clinical(people, visit, rng),
            f"Quant JSW_ASCII/kxr_qjsw_duryea{visit}": _widths(people, visit, rng),
            f"Semi-Quant Scoring_ASCII/kxr_sq_bu{visit}": _grades(people, visit, rng),
        }.items():
            head, lines = rows
            folder_name, file_name = name.split("/")
            head = [column.lower() for column in head] if lower else head
            path = tables / folder_name / f"{file_name.upper() if visit == '03' else file_name}.txt"
            written[file_name] = _write(path, head, lines, 0.03, rng)
    return written


def write_contents(people: Sequence[Participant], images: Path, seed: int) -> None:
    """Write the contents.csv of each visit: its series by folder, some without a barcode, some not at all."""
    rng = np.random.default_rng((seed, 1_000_037))
    listed: dict[str, list[list[str]]] = {}
    for person in people:
        for scan in person.scans:
            if scan.listed is not None:
                listed.setdefault(f"{VISITS[scan.visit]:02d}m", []).append(_listed(person, scan, rng))
    for visit, rows in listed.items():
        head = ["Folder", "ParticipantID", "StudyDate", "Barcode", "SeriesDescription"]
        if visit == "12m":
            head[3] = "AccessionNumber"
        (images / visit).mkdir(parents=True, exist_ok=True)
        with (images / visit / "contents.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows])


def barcode(scan: Scan) -> str:
    """Of the series, as the OAI's are written: 0166 and eight digits."""
    return f"0166{scan.number:08d}"


def _listed(person: Participant, scan: Scan, rng: np.random.Generator) -> list[str]:
    place = folder(person, scan).split("/", 1)[1]
    code = "" if rng.random() < 0.1 else barcode(scan)
    return [place, person.identifier, f"{person.day(scan.visit):%Y%m%d}", code, scan.listed or ""]


def _write(path: Path, head: Sequence[str], rows: Iterable[list[str]], again: float, rng: np.random.Generator) -> int:
    """The rows in another order, some of them twice."""
    every = list(rows)
    every += [row for row in every if rng.random() < again]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["|".join(head), *("|".join(every[place]) for place in rng.permutation(len(every)))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(every)


def _missing(rng: np.random.Generator) -> str:
    return str(rng.choice(_MISSING))


def _number(value: float | None, rng: np.random.Generator) -> str:
    """A number as SAS and text exports write it: 3, 3.0 or 3.5; or one of the words for a missing one."""
    if value is None:
        return _missing(rng)
    return f"{value:g}" if rng.random() < 0.8 or value != int(value) else f"{value:.1f}"


def _enrollees(people: Sequence[Participant]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [person.identifier, "27", {"M": "1: Male", "F": "2: Female"}[person.sex],
         ".D: Don't Know/Unknown/Uncertain" if person.race is None else _RACES[person.race], "0: No", "C",
         "2: Incidence"]
        for person in people
    ]  # fmt: skip
    return ["ID", "VERSION", "P02SEX", "P02RACE", "P02HISP", "V00SITE", "V00COHORT"], rows


def _clinical(people: Sequence[Participant], visit: str, rng: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """Age, size and WOMAC pain of a visit; at the first one also what is asked once."""
    first = visit == "00"
    weight, bmi = ("P01WEIGHT", "P01BMI") if first else (f"V{visit}WEIGHT", f"V{visit}BMI")
    head = ["ID", "VERSION", f"V{visit}AGE", weight, bmi]
    head += [f"V{visit}{name}{side}" for name in ("WOMKP", "WOMTS", "KOOSKP") for side in "RL"]
    head += ["P01HEIGHT", "P01INJR", "P01INJL", "P01KSURGR", "P01KSURGL"] if first else []
    rows = []
    for person in people:
        if not person.tables[visit]:
            continue
        pain = {side: person.knees[visit, side].pain for side in "RL"}
        row = [person.identifier, "1.2.1", _number(person.age + VISITS[visit] // 12, rng)]
        row += [_number(person.weight[visit], rng), _bmi(person, visit, rng)]
        row += [_number(pain[side], rng) for side in "RL"]
        row += [_number(None if pain[side] is None else 4 * (pain[side] or 0), rng) for side in "RL"]
        row += [_number(None if pain[side] is None else 100 - 5 * (pain[side] or 0), rng) for side in "RL"]
        if first:
            asked = [person.history[f"{what}_{side}"] for what in ("injury", "surgery") for side in "RL"]
            words = {0: "0: No", 1: "1: Yes"}
            row += [str(person.height), *(_missing(rng) if answer is None else words[answer] for answer in asked)]
        rows.append(row)
    return head, rows


def _bmi(person: Participant, visit: str, rng: np.random.Generator) -> str:
    bmi = person.bmi(visit)
    return _missing(rng) if bmi is None or not person.has_bmi(visit) else f"{bmi:.1f}"


def _widths(people: Sequence[Participant], visit: str, rng: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """Joint space widths in mm, and the fixed-location ones beside them, which nothing asks for."""
    head = ["ID", "SIDE", "READPRJ", "VERSION", f"V{visit}MCMJSW", *(f"V{visit}{name}" for name in _FIXED)]
    rows = []
    for person in people:
        for side in "RL":
            space = person.knees[visit, side].space
            told = None if space is None else f"{space / 1000:.3f}"
            wrong = f"{int(rng.integers(500, 7000)) / 1000:.3f}"
            for project, value in _readings(told, wrong, rng):
                fixed = [_missing(rng) if value is None else f"{float(value) + 0.4:.3f}"] * len(_FIXED)
                rows.append([person.identifier, str(rng.choice(_SIDE[side])), project, "0.6", value or _missing(rng)])
                rows[-1] += fixed
    return head, rows


def _grades(people: Sequence[Participant], visit: str, rng: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """KL and joint space narrowing, by reading projects."""
    head = ["ID", "SIDE", "READPRJ", "VERSION", f"V{visit}BARCDBU"]
    head += [f"V{visit}{name}" for name in ("XRKL", "XRJSM", "XRJSL")]
    rows = []
    for person in people:
        for side in "RL":
            knee = person.knees[visit, side]
            code = f"0166{person.number:08d}"
            for project, value in _readings(str(knee.kl) if knee.kl_read else None, str(rng.integers(0, 5)), rng):
                grade = _missing(rng) if value is None else f"{value}: {value}" if rng.random() < 0.3 else value
                rows.append([person.identifier, str(rng.choice(_SIDE[side])), project, "0.9", code, grade, "1", "0"])
    return head, rows


def _readings(told: str | None, wrong: str, rng: np.random.Generator) -> list[tuple[str, str | None]]:
    """READPRJ and value: as a rule of one project; of several, what must not count is of one less preferred."""
    luck = rng.random()
    if told is None:
        return [] if luck < 0.5 else [("15", None)]
    if luck < 0.1:
        return [("37", wrong), ("15", told)]
    if luck < 0.16:
        return [("15: Project 15", None), ("42", told)]
    if luck < 0.2:
        return [("42", told), ("99", wrong)]
    if luck < 0.22:  # one project contradicts itself and is not believed; the next one is
        return [("15", told), ("15", f"{wrong}1" if "." in wrong else str((int(told) + 1) % 5)), ("37", told)]
    return [("15", told)]
