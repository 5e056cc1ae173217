"""What the rules must keep of a made OAI: worked out from the plan, without tables and without the cohort's code.

Plain loops over participants and series in the order of the published rules, and whole micrometres, so that the cohort
has something independent to be held against.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import generate_uid

from training.synth_oai_plan import LEAST, SEQUENCES, TABLES, VISITS, KneeVisit, Participant, Scan

RULES = (
    "MR", "sequence", "side known", "plane", "visit known", "slices readable", "enough slices", "last of rescans",
    "window", "known at the image", "known at the follow-up", "label",
)  # fmt: skip
TARGETS = ("progression_abs", "progression_rel", "womac_pain_binary", "womac_pain_class")
FOLLOWUPS = (12, 24)
_MONTHS = {months: visit for visit, months in VISITS.items()}


@dataclass(frozen=True)
class Row:
    """A series of a participant, and what is believed of it; sequence and side are empty where nothing is."""

    person: Participant
    scan: Scan
    sequence: str
    side: str

    @property
    def series(self) -> str:
        """Its UID."""
        return series_uid(self.person, self.scan)

    @property
    def kind(self) -> tuple[int, str, str, str]:
        """What rescans have in common."""
        return (self.person.number, self.scan.visit, self.side, self.sequence)


def study_uid(person: Participant, scan: Scan) -> str:
    """The study of a series: MR of a visit, and its film apart."""
    return str(
        generate_uid(entropy_srcs=["genu oai study", person.identifier, scan.visit, str(scan.sequence == "film")])
    )


def series_uid(person: Participant, scan: Scan) -> str:
    """The UID of a series."""
    return str(generate_uid(entropy_srcs=["genu oai series", person.identifier, str(scan.number)]))


def folder(person: Participant, scan: Scan) -> str:
    """Where a series lies in the release."""
    return f"{VISITS[scan.visit]:02d}m/{person.group}/{person.identifier}/{person.day(scan.visit):%Y%m%d}/{scan.number}"


def truth(people: list[Participant]) -> dict[str, Any]:
    """The counts that each rule leaves for each label and follow-up, and the rows that stay for one of the labels."""
    rows = [_believed(person, scan) for person in people for scan in person.scans]
    flows: dict[str, Any] = {}
    kept: dict[str, dict[str, Any]] = {}
    for followup in FOLLOWUPS:
        for target in TARGETS:
            left, flow = rows, [{"rule": "source", **_counts(rows)}]
            for name, keeps in _rules(rows, followup, target).items():
                left = [row for row in left if keeps(row)]
                flow.append({"rule": name, **_counts(left)})
            flows.setdefault(str(followup), {})[target] = flow
            kept.setdefault(str(followup), {}).update({_key(row, followup): _entry(row, followup) for row in left})
    return {"flow": flows, "rows": kept}


def labels(knee: KneeVisit, later: KneeVisit | None) -> dict[str, int | None]:
    """The four labels of a knee, by whole numbers."""
    result: dict[str, int | None] = dict.fromkeys(TARGETS)
    if later is not None and knee.space is not None and later.space is not None:
        lost = knee.space - later.space
        result["progression_abs"] = int(lost >= 500)
        result["progression_rel"] = int(4 * lost >= knee.space) if knee.space else None
    if knee.pain is not None:
        result["womac_pain_binary"] = 0 if knee.pain < 1 else 1 if knee.pain >= 2 else None
        result["womac_pain_class"] = 0 if knee.pain < 1 else 1 if knee.pain < 5 else 2
    return result


def _believed(person: Participant, scan: Scan) -> Row:
    """Header and list must name the same series; where one is silent the other is believed."""
    said = {"_".join(name.split()) for name in (scan.header, scan.listed) if name}
    name = said.pop() if len(said) == 1 else ""
    for sequence in SEQUENCES:
        if name in (sequence, f"{sequence}_LEFT", f"{sequence}_RIGHT"):
            return Row(person, scan, sequence, name[len(sequence) + 1 :][:1])
    return Row(person, scan, "", "")


def _rules(rows: list[Row], followup: int, target: str) -> Mapping[str, Callable[[Row], bool]]:
    last: dict[tuple[int, str, str, str], int] = {}
    for row in rows:
        if row.side and not row.scan.broken and not row.scan.wrong_plane and row.scan.slices >= LEAST:
            last[row.kind] = max(row.scan.number, last.get(row.kind, 0))
    pain = target.startswith("womac")
    checks: tuple[Callable[[Row], bool], ...] = (
        lambda row: row.scan.sequence != "film",
        lambda row: row.sequence != "",
        lambda row: row.side != "",
        lambda row: not row.scan.wrong_plane,
        lambda row: row.scan.visit in TABLES,
        lambda row: not row.scan.broken,
        lambda row: row.scan.slices >= LEAST,
        lambda row: last[row.kind] == row.scan.number,
        lambda row: VISITS[row.scan.visit] + followup <= 36,
        lambda row: _pain(row) is not None if pain else _knee(row).space is not None,
        lambda row: pain or _later(row, followup).space is not None,
        lambda row: _labels(row, followup)[target] is not None,
    )
    return dict(zip(RULES, checks, strict=True))


def _knee(row: Row) -> KneeVisit:
    return row.person.knees[row.scan.visit, row.side]


def _later(row: Row, followup: int) -> KneeVisit:
    return row.person.knees[_MONTHS[VISITS[row.scan.visit] + followup], row.side]


def _pain(row: Row) -> float | None:
    return _knee(row).pain if row.person.tables[row.scan.visit] else None


def _labels(row: Row, followup: int) -> dict[str, int | None]:
    found = labels(_knee(row), _later(row, followup))
    if not row.person.tables[row.scan.visit]:
        found |= {"womac_pain_binary": None, "womac_pain_class": None}
    return found


def _key(row: Row, followup: int) -> str:
    end = _MONTHS[VISITS[row.scan.visit] + followup]
    return f"{row.series}/{row.side}/V{row.scan.visit}-V{end}"


def _entry(row: Row, followup: int) -> dict[str, Any]:
    knee, later, person, asked = _knee(row), _later(row, followup), row.person, row.person.tables[row.scan.visit]
    first = asked and person.tables["00"]  # height, injuries and surgery are those of the first visit
    mm = [None if space is None else space / 1000 for space in (knee.space, later.space)]
    return {
        "PatientID": person.identifier, "path": folder(person, row.scan), "sequence": row.sequence, "side": row.side,
        "visit": VISITS[row.scan.visit], "sex": person.sex, "slices": row.scan.slices,
        "age": person.age + VISITS[row.scan.visit] // 12 if asked else None,
        "height": person.height / 1000 if first else None,
        "bmi": person.bmi(row.scan.visit) if first or (asked and person.has_bmi(row.scan.visit)) else None,
        "weight": person.weight[row.scan.visit] if asked else None,
        "mjsw": mm[0], "mjsw_followup": mm[1], "kl": knee.kl if knee.kl_read else None, "womac_pain": _pain(row),
        "injury": person.history[f"injury_{row.side}"] if first else None,
        "surgery": person.history[f"surgery_{row.side}"] if first else None,
        "lesion": knee.lesion, "risk": knee.risk, **_labels(row, followup),
    }  # fmt: skip


def _counts(rows: list[Row]) -> dict[str, int]:
    return {
        "patients": len({row.person.number for row in rows}),
        "studies": len({(row.person.number, row.scan.visit, row.scan.sequence == "film") for row in rows}),
        "series": len(rows),
        "knees": len({(row.person.number, row.side) for row in rows if row.side}),
    }
