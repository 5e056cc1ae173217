"""The acceptance run: made films of every kind that a hospital sends, and what came of them in `genu score`.

`genu-train acceptance` writes the films and truth.csv, has them scored by a child process, and judges results.jsonl
(docs/acceptance.md). No side may be wrong, and nothing but a frontal knee may be graded.
"""

import csv
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import DataError
from inference.findings import RefusalCode, Side
from training import acceptance_kinds, acceptance_unfit
from training.acceptance_dicom import Encoding, Identity, to_dicom
from training.acceptance_films import Knees, There
from training.acceptance_kinds import Film, Kind

KINDS: tuple[Kind, ...] = (*acceptance_kinds.KINDS, *acceptance_unfit.KINDS)
FILMS, TRUTH = "films", "truth.csv"
COLUMNS = ("file", "study", "source", "kind", "expected", "codes", "knees", "shows")
_NEAR = 0.4  # of a knee's crop: a graded box whose centre is farther from every knee is on none
_EXPECTED = {"score L": "L", "score R": "R", "score both": "LR", "refuse": ""}


@dataclass(frozen=True)
class TrueFilm:
    """One line of truth.csv.

    `file` is below the folder, `study` and `source` are UIDs; `expected` the sides to be scored, none to be refused;
    `codes` those of a right refusal, none where any is right. Where both stand, both are right. `knees` are all frontal
    knees on the film, fit or not.
    """

    file: str
    study: str
    source: str
    kind: str
    expected: frozenset[Side]
    codes: frozenset[RefusalCode]
    knees: tuple[There, ...]
    shows: str

    def row(self) -> tuple[str, ...]:
        """As it stands in the CSV."""
        sides = "".join(sorted(self.expected))
        expected = next(text for text, letters in _EXPECTED.items() if letters == sides)
        knees = "; ".join(f"{k.side.value} {k.x:.1f} {k.y:.1f} {k.width:.1f} {k.height:.1f}" for k in self.knees)
        codes = " ".join(sorted(code.value for code in self.codes))
        return (self.file, self.study, self.source, self.kind, expected, codes, knees, self.shows)


class Outcome(StrEnum):
    """What came of a film; the columns of the table."""

    SCORED = "scored as expected"
    REFUSED = "refused as expected"
    NEEDLESS = "refused needlessly"
    OTHER_CODE = "refused, but not for this reason"
    UNFIT = "scored, was to be refused"
    WRONG_SIDE = "WRONG SIDE"
    NO_KNEE = "GRADE ON NO KNEE"
    LOST = "no result"


@dataclass(frozen=True)
class Judged:
    """One film: what was to come of it, and what did. `said` are sides and codes, `models` name who graded it."""

    film: TrueFilm
    outcome: Outcome
    said: str
    models: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What came of all films."""

    films: tuple[Judged, ...]

    @property
    def passed(self) -> bool:
        """No wrong side, no grade on what is no frontal knee, and every film has a result."""
        return not any(judged.outcome in (Outcome.WRONG_SIDE, Outcome.NO_KNEE, Outcome.LOST) for judged in self.films)

    def of_kinds(self) -> dict[str, Counter[Outcome]]:
        """How many films of each kind came to what, in the order of the films."""
        found: dict[str, Counter[Outcome]] = {}
        for judged in self.films:
            found.setdefault(judged.film.kind, Counter())[judged.outcome] += 1
        return found

    def unexpected(self) -> list[Judged]:
        """Films of which something else was expected, the gravest first."""
        fine = (Outcome.SCORED, Outcome.REFUSED)
        gravity = [Outcome.WRONG_SIDE, Outcome.NO_KNEE, Outcome.LOST, Outcome.UNFIT, Outcome.NEEDLESS]
        order = {outcome: number for number, outcome in enumerate([*gravity, Outcome.OTHER_CODE])}
        return sorted((j for j in self.films if j.outcome not in fine), key=lambda judged: order[judged.outcome])


# ---- the films


def plan(films: int) -> list[tuple[Kind, int]]:
    """Which film of which kind, in order: three of each where they suffice, and more of the common ones.

    Below three of each they are as even as can be; below one of each, kinds are left out evenly.
    """
    counts = [films // len(KINDS)] * len(KINDS)
    common = [number for number, kind in enumerate(KINDS) if kind.common]
    if films >= 3 * len(KINDS):
        counts, favoured = [3] * len(KINDS), common
    else:
        favoured = [int(number) for number in np.linspace(0, len(KINDS) - 1, films % len(KINDS)).round()]
    for turn in range(films - sum(counts)):
        counts[favoured[turn % len(favoured)]] += 1
    return [(kind, number) for kind, count in zip(KINDS, counts, strict=True) for number in range(count)]


def make(kind: Kind, number: int, knees: Knees, seed: int) -> Film:
    """The film of a number of a kind; the same each time."""
    return kind.make(knees, _generator(seed, kind.name, number), number)


def write_set(
    knees: Knees, films: int, seed: int, out: Path, progress: Callable[[int, int], None] = lambda done, all_: None
) -> list[TrueFilm]:
    """Write the films below OUT/films; what they are. `progress` is called with (done, all)."""
    chosen, found = plan(films), []
    for done, (kind, number) in enumerate(chosen):
        film = make(kind, number, knees, seed)
        study = f"{seed} {kind.name} {number if film.study is None else f'study {film.study}'}"
        encoding = Encoding.draw(_generator(seed, f"{kind.name} stored", number), done)
        found.append(write_film(film, kind.name, (f"{seed} {kind.name} {number}", study), encoding, out, done))
        progress(done + 1, len(chosen))
    return found


def write_film(film: Film, kind: str, names: tuple[str, str], encoding: Encoding, out: Path, number: int) -> TrueFilm:
    """Write one film; `names` are those of instance and study."""
    identity = Identity(*names, patient=zlib.crc32(names[1].encode()) % 100_000)
    ds = to_dicom(
        film.picture.pixels,
        film.header,
        replace(encoding, **film.encoding),
        identity,
        film.padding,
        film.frames,
    )
    slug = "".join(letter if letter.isalnum() else "_" for letter in kind.lower())
    file = f"{FILMS}/{number:04d}_{slug}.dcm"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(out / file, enforce_file_format=True)
    return TrueFilm(
        file, identity.study_uid, identity.sop_uid, kind, film.expected, film.codes, film.picture.knees, film.shows
    )


def _generator(seed: int, name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


# ---- truth.csv


def write_truth(films: Iterable[TrueFilm], path: Path) -> None:
    """Write the table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(film.row() for film in films)


def read_truth(path: Path) -> list[TrueFilm]:
    """Read the table.

    Raises:
        DataError: it is not there, or a line is not what `write_truth` writes; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_true_film(row, f"{path}, line {line}") for line, row in enumerate(csv.DictReader(file), start=2)]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): make the films first.") from error


def _true_film(row: Mapping[str, str], place: str) -> TrueFilm:
    try:
        knees = []
        for text in filter(None, row["knees"].split("; ")):
            side, *numbers = text.split(" ")
            x, y, width, height = map(float, numbers)
            knees.append(There(Side(side), x, y, width, height))
        expected = frozenset(map(Side, _EXPECTED[row["expected"]]))
        codes = frozenset(map(RefusalCode, row["codes"].split()))
        return TrueFilm(
            row["file"], row["study"], row["source"], row["kind"], expected, codes, tuple(knees), row["shows"]
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{place} is not a line of a truth table ({error}): make the films again.") from error


# ---- the judgement


def judge(truth: Sequence[TrueFilm], results: Path) -> Verdict:
    """Compare what `genu score` wrote with what was to come of the films.

    Raises:
        DataError: results.jsonl is not there, or a line of it is none.
    """
    try:
        lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
        by_study = {str(line["study"]): line for line in lines}
    except OSError as error:
        raise DataError(f"{results} cannot be read ({error.strerror}): run `genu score` first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{results} is not what `genu score` writes ({error}).") from error
    return Verdict(tuple(_judged(film, by_study.get(film.study)) for film in truth))


def _judged(film: TrueFilm, line: Mapping[str, Any] | None) -> Judged:
    if line is None or line["status"] == "failed":
        return Judged(film, Outcome.LOST, "failed" if line else "no line")
    graded = [knee for knee in line["knees"] if knee["source"] == film.source]
    refusals = [refusal for refusal in line["refusals"] if refusal.get("source", film.source) == film.source]
    codes = {refusal["code"] for refusal in refusals}
    said = ", ".join([f"scored {knee['side']}" for knee in graded] + [f"refused: {r['code']} ({r['reason']})" for r in
                                                                      refusals])  # fmt: skip
    models = frozenset(
        f"{model['name']} {model['version']} (digest {model['digest'][:12]})"
        for knee in graded
        if (model := knee.get("model"))
    )
    return Judged(film, _outcome(film, graded, codes), said, models)


def _outcome(film: TrueFilm, graded: Sequence[Mapping[str, Any]], codes: set[str]) -> Outcome:
    owners = [_knee_at(film, knee["box"]) for knee in graded]
    if any(owner is None for owner in owners):
        return Outcome.NO_KNEE
    if any(owner.side != knee["side"] for owner, knee in zip(owners, graded, strict=True) if owner is not None):
        return Outcome.WRONG_SIDE
    sides = {knee["side"] for knee in graded}
    if sides - film.expected or len(graded) > len(sides):
        return Outcome.UNFIT
    if graded:
        return Outcome.SCORED if sides == film.expected else Outcome.NEEDLESS
    if film.expected and not codes & film.codes:
        return Outcome.NEEDLESS
    if not codes:
        return Outcome.LOST
    return Outcome.REFUSED if not film.codes or codes & film.codes else Outcome.OTHER_CODE


def _knee_at(film: TrueFilm, box: Sequence[float]) -> There | None:
    """The knee that a box (left, top, right, bottom) lies on."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    near = [k for k in film.knees if abs(x - k.x) < _NEAR * k.width and abs(y - k.y) < _NEAR * k.height]
    return min(near, key=lambda knee: abs(x - knee.x) + abs(y - knee.y), default=None)
