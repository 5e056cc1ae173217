"""The report's sections that all kinds share: what was run, on whom, and how it was made."""

import io
import json
import shlex
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from PIL import Image

from inference.errors import DataError
from training import fit_record, report_plots
from training.cv_evidence import Evidence, is_baseline, title_of
from training.cv_subgroups import factors_of, patients_in
from training.report_page import Cell, Code, Heading, Part, Picture, Row, Section, Table, Text

_TOLD: Final = frozenset(
    {"kind", "target", "bounds", "unit", "synthetic", "systems", "asked", "versions", "command", "fits"}
)
_LARGEST: Final = 4_000_000  # bytes of the flow diagram


def lead(evidence: Evidence) -> list[Part]:
    """Sizes and systems, for the top of the page."""
    about, knees = evidence.about, evidence.knees
    patients = knees["PatientID"].n_unique()
    target, unit = str(about.get("target", "the target")), str(about.get("unit", ""))
    bounds = about.get("bounds")
    scale = f" ({bounds[0]:g} to {bounds[1]:g} {unit})".replace(" )", ")") if bounds else ""
    baselines = [title_of(one) for one in evidence.systems if is_baseline(one)]
    systems = [title_of(one) for one in evidence.systems if not is_baseline(one)]
    parts: list[Part] = [
        Text(
            f"{_asked(evidence, target)}{scale} of {_rows(knees)} of {patients:,} patients, in "
            f"{knees['fold'].n_unique()} folds by patient: each knee is predicted by models that have seen no image of "
            "its patient."
        ),
        Text(f"Systems: {'; '.join(systems) or 'none'}. Baselines: {'; '.join(baselines) or 'none'}."),
    ]
    if evidence.unfinished:
        parts.append(Text(f"NOT FINISHED, and missing below: {', '.join(evidence.unfinished)}.", "mark"))
    return parts


def _asked(evidence: Evidence, target: str) -> str:
    """The last class where there are classes, else the target."""
    name = str((evidence.about.get("classes") or [target])[-1])
    return name[:1].upper() + name[1:]


def _rows(knees: pl.DataFrame) -> str:
    """How many; a knee with several windows is there several times."""
    if "window" not in knees.columns:
        return f"{len(knees):,} knees"
    return f"{len(knees):,} visits of {knees.select('PatientID', 'side').n_unique():,} knees"


def knees_section(evidence: Evidence) -> Section:
    """Who is in it, what there is to predict, and how the cohort came about."""
    target, unit = str(evidence.about.get("target", "the target")), str(evidence.about.get("unit", ""))
    return Section("knees", "The knees", [_people(evidence), *_target(evidence, target, unit), *_flow(evidence)])


def _people(evidence: Evidence) -> Table:
    truth, total = evidence.truth, len(evidence.knees)
    rows = [_person("all", np.ones(total, bool), truth, evidence.knees["PatientID"].n_unique(), total)]
    for factor in factors_of(evidence.knees):
        sizes = patients_in(factor, evidence.patients)
        for place, group in enumerate(factor.groups):
            title = f"{factor.name}: {group}"
            rows.append(_person(title, factor.places == place, truth, sizes[place], total))
    heads = [Cell("group"), Cell("knees"), Cell("share"), Cell("patients"), Cell("mean"), Cell("SD"), Cell("median")]
    return Table(
        heads,
        rows,
        f"Who is in it; mean, standard deviation and median of {evidence.about.get('target', 'the target')}.",
    )


def _person(title: str, chosen: Any, truth: Any, patients: int, total: int) -> Row:
    values = truth[chosen]
    spread = f"{values.std():.2f}" if len(values) > 1 else "-"
    cells = [
        f"{len(values):,}",
        f"{len(values) / total:.1%}",
        f"{patients:,}",
        f"{values.mean():.2f}",
        spread,
        f"{np.median(values):.2f}",
    ]
    return Row(Cell(title), [Cell(text) for text in cells])


def _target(evidence: Evidence, target: str, unit: str) -> Iterable[Part]:
    truth = evidence.truth
    if evidence.about.get("classes"):  # their shares stand in the first section
        return
    limits = evidence.about.get("bounds") or (float(truth.min()), float(truth.max()))
    yield Picture(
        "target", report_plots.histogram(truth, limits, f"{target}, {unit}" if unit else target),
        f"Histogram of {target}: mean {truth.mean():.2f}, standard deviation {truth.std():.2f}.",
        f"How often each value of {target} occurs.",
    )  # fmt: skip


def _flow(evidence: Evidence) -> Iterable[Part]:
    """The cohort's flow diagram, where the run says which cohort and it is still there."""
    named = evidence.about.get("cohort")
    if not isinstance(named, str):
        return
    folder = Path(named)
    folder = folder if folder.is_dir() else folder.parent
    path = folder / "flow.png"
    if not path.is_file() or path.stat().st_size > _LARGEST:
        yield Text(f"The flow diagram of the cohort is not at {path}.", "fine")
        return
    yield Heading("How the cohort came about")
    yield Picture(
        "cohort-flow",
        _drawn(path),
        f"Flow of the cohort: {_steps(folder)}",
        "What each rule of the cohort kept and dropped.",
    )


def _drawn(path: Path) -> bytes:
    """The diagram written anew: nothing but pixels goes into the page."""
    drawn = io.BytesIO()
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(drawn, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:  # all Pillow's
        raise DataError(
            f"{path} is no PNG, or a damaged one ({error}): make the cohort again, or remove it to go without."
        ) from error
    return drawn.getvalue()


def _steps(folder: Path) -> str:
    path = folder / "flow.csv"
    if not path.is_file():
        return "see the cohort's folder."
    try:
        table = pl.read_csv(path, columns=["rule", "kept_knees"], infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} has no rule and kept_knees ({error}): make the cohort again, or remove it.") from error
    return "; ".join(f"after {row['rule']}: {row['kept_knees']} knees" for row in table.to_dicts()) + "."


def made(evidence: Evidence, figures: Mapping[str, Any]) -> Section:
    """What was chosen, under which terms the weights are, versions, hashes, and the commands."""
    parts: list[Part] = [_terms(evidence), Heading("Chosen in each fold, inside its training folds"), _chosen(evidence)]
    for system in evidence.systems:
        if isinstance(system.about.get("recipe"), Mapping):
            told = {name: system.about.get(name) for name in ("weights", "precision", "seed")} | system.about["recipe"]
            parts.append(Text(f"{title_of(system)} ({system.system}): {_choices(told)}.", "fine"))
    settings = {key: value for key, value in evidence.about.items() if key not in _TOLD}
    if settings:
        rows = [Row(Cell(key), [Cell(_value(value))]) for key, value in settings.items()]
        parts += [Heading("The run"), Table([Cell("setting"), Cell("value")], rows)]
    parts += [
        Heading("Versions"),
        Text(_versions(evidence.about), "fine"),
        Heading("To make it again"),
        _commands(evidence),
    ]
    rows = [Row(Cell(name), [Cell(digest)]) for name, digest in figures["inputs"].items()]
    parts += [Heading("What was read"), Table([Cell("file"), Cell("SHA-256")], rows)]
    parts.append(Text("The page names no patient. It holds no script and asks nobody for anything.", "fine"))
    return Section("made", "How it was made", parts)


def _terms(evidence: Evidence) -> Table:
    rows = []
    for system in evidence.systems:
        about = system.about
        seconds = about.get("seconds")
        service = (
            "-"
            if not about.get("backbone")
            else "may be served"
            if about.get("deployed_use")
            else "not in a running service"
        )
        cells = [
            "; ".join(str(about[name]) for name in ("head", "features") if about.get(name)),
            about.get("backbone"), about.get("licence"), service,
            None if seconds is None else f"{float(seconds):,.1f} s", "YES" if about.get("synthetic") else "no",
        ]  # fmt: skip
        rows.append(
            Row(
                Cell(title_of(system), system.system),
                [Cell(str(cell or "-")) for cell in cells],
                "baseline" if is_baseline(system) else "",
            )
        )
    heads = ["system", "head", "backbone", "licence of its weights", "weights' terms", "time to fit", "synthetic"]
    return Table([Cell(head) for head in heads], rows)


def _chosen(evidence: Evidence) -> Table:
    folds = sorted({int(fold) for fold in evidence.folds})
    final = any(isinstance(system.about.get("final"), Mapping) for system in evidence.systems)
    rows = []
    for system in evidence.systems:
        told = {int(fold.get("fold", -1)): fold for fold in system.about.get("folds", ())}
        cells = [Cell(_choices(told.get(fold, {}).get("chosen"))) for fold in folds]
        cells += [Cell(_choices(system.about.get("final")))] if final else []
        rows.append(Row(Cell(title_of(system), system.system), cells, "baseline" if is_baseline(system) else ""))
    last = [Cell("all knees", "for the bundle")] if final else []
    return Table([Cell("system"), *(Cell(f"fold {fold}") for fold in folds), *last], rows)


def _choices(chosen: Any) -> str:
    if not isinstance(chosen, Mapping) or not chosen:
        return "-"
    return ", ".join(f"{name} {_value(value)}" for name, value in chosen.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _versions(about: Mapping[str, Any]) -> str:
    here = f"Evaluated with {_choices(fit_record.installed())}."
    fitted = "; then with ".join(_choices(told) for told in fit_record.versions(about))
    return f"Fitted with {fitted}. {here}" if fitted else here


def _commands(evidence: Evidence) -> Code:
    name, told = shlex.quote(evidence.run.name), map(shlex.join, fit_record.commands(evidence.about))
    return Code([*told, f"genu-train evaluate --run {name}", f"genu-train report --run {name}"])
