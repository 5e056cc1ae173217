"""The table of `genu-train search` as CSV and as Markdown."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final

from training.resampling import Estimate
from training.search_space import Space
from training.search_table import FIGURES, Row

_FIRST: Final = ("candidate", "member", "changed", "folds", "knees", "patients")
_LAST: Final = ("log_loss_by_fold", "epochs", "gflop", "seconds", "verdict", "chosen")
_CLEAR: Final = {True: "better", False: "worse"}


def as_csv(rows: Sequence[Row]) -> str:
    """One line a candidate: figures and paired differences to the reference, each with its 95 % interval."""
    file = io.StringIO()
    named = [f"{prefix}{name}" for prefix in ("", "difference_") for name in FIGURES]
    named.append("later_difference_log_loss")
    columns = [f"{name}{end}" for name in named for end in ("", "_low", "_high")]
    writer = csv.DictWriter(file, [*_FIRST, *columns, *_LAST], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        figures = [row.figures.get(name) for name in FIGURES] + [row.differences.get(name) for name in FIGURES]
        figures.append(row.later.get("log_loss"))
        values = [value for figure in figures for value in (figure or (None, None, None))]
        numbers = ("" if value is None else f"{value:.5f}" for value in values)
        writer.writerow(
            {
                "candidate": row.candidate.name,
                "member": row.candidate.member,
                "changed": row.candidate.changed,
                "folds": " ".join(map(str, row.folds)),
                "knees": row.knees,
                "patients": row.patients,
                **dict(zip(columns, numbers, strict=True)),
                "log_loss_by_fold": " ".join(f"{loss:.5f}" for loss in row.by_fold),
                "epochs": row.candidate.config.epochs,
                "gflop": f"{row.gflop:.3f}",
                "seconds": f"{row.seconds:.0f}",
                "verdict": verdict(row),
                "chosen": "yes" if row.chosen else "",
            }
        )
    return file.getvalue()


def as_markdown(space: Space, rows: Sequence[Row]) -> str:
    """A table a member, and how it is to be read."""
    return "\n".join(_lines(space, rows)) + "\n"


def verdict(row: Row) -> str:
    """What the paired interval of the log loss says about a candidate and its reference."""
    if row.candidate.is_reference:
        return "reference"
    found = row.differences.get("log_loss")
    if found is None or found.value is None or found.low is None or found.high is None:
        return "not fitted"
    clear = found.high < 0 or found.low > 0
    said = _CLEAR[found.value < 0] if clear else "within noise"
    return said if len(row.folds) > 1 else f"{said}, on one fold"


def _lines(space: Space, rows: Sequence[Row]) -> Iterator[str]:
    share = "" if space.share == 1 else f", {space.share * 100:.0f} % of the patients"
    yield f"Cross-validation on `train`{share}, {space.folds} patient-grouped folds; all knees unseen by their network."
    yield "95 % patient-bootstrap intervals in brackets; differences are to the reference, paired, on the same folds."
    yield "Log loss after a temperature that other held-out patients chose (without one in the column after it);"
    yield f"grade by {space.decoder}."
    if space.halving is not None:
        yield (
            f"All candidates were fitted on {space.halving.folds} fold(s), the reference and the best "
            f"{space.halving.keep} other(s) of a member on all;"
        )
        yield "later folds are those that had no part in that choice."
    for member in dict.fromkeys(row.candidate.member for row in rows):
        yield ""
        yield "| candidate | folds | knees | log loss | uncalibrated | kappa | accuracy |"
        yield "|---|---|---:|---:|---:|---:|---:|"
        mine = [row for row in rows if row.candidate.member == member]
        for row in mine:
            yield _figures(row)
        yield ""
        yield "| difference | log loss | | on later folds | kappa | accuracy | log loss by fold |"
        yield "|---|---:|---|---:|---:|---:|---|"
        for row in mine:
            yield _differences(row)
        yield ""
        yield _choice(member, mine)


def _figures(row: Row) -> str:
    cells = [_cell(row.figures.get(name)) for name in FIGURES]
    return f"| {_name(row)} | {_folds(row)} | {row.knees or ''} | {' | '.join(cells)} |"


def _differences(row: Row) -> str:
    loss, later = (_cell(found.get("log_loss"), signed=True) for found in (row.differences, row.later))
    rest = [_cell(row.differences.get(name), signed=True) for name in ("quadratic_kappa", "accuracy")]
    by_fold = ", ".join(f"{value:.3f}" for value in row.by_fold)
    return f"| {_name(row)} | {loss} | {verdict(row)} | {later} | {' | '.join(rest)} | {by_fold} |"


def _name(row: Row) -> str:
    name = f"`{row.candidate.name}`" if row.candidate.is_reference else row.candidate.changed
    return f"**{name}**" if row.chosen else name


def _folds(row: Row) -> str:
    return ", ".join(str(number) for number in row.folds) or "none"


def _cell(figure: Estimate | None, *, signed: bool = False) -> str:
    if figure is None or figure.value is None:
        return ""
    sign = "+" if signed else ""
    interval = "" if figure.low is None else f" ({figure.low:{sign}.3f} to {figure.high:{sign}.3f})"
    return f"{figure.value:{sign}.3f}{interval}"


def _choice(member: str, rows: Sequence[Row]) -> str:
    chosen = [row for row in rows if row.chosen]
    if not chosen:
        return f"`{member}`: no candidate has all folds yet, none is chosen."
    tied = [row.candidate.changed or "the reference" for row in rows if row.tied]
    what = chosen[0].candidate.changed or "the reference"
    return f"`{member}`: {what} is chosen. Within one standard error of the least log loss: {'; '.join(tied)}."
