"""Whose data a model learnt from, and under which licence: from the rules into the cohort, the bundle and its card."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from inference.errors import DataError
from tests.pain_runs import made_run
from training.card_parts import data_source
from training.cohort_origin import Origin, origin_of
from training.cohorts.rows import Source, select, write
from training.cohorts.rules import read_rules, shipped
from training.pain_export import export_run

RULE = '[[rule]]\nname = "label"\nsentence = "It has a score."\ncolumn = "pain"\nat_least = 0\n'


def cohort_of(folder: Path, told: str) -> tuple[Path, str]:
    """A cohort of one knee by rules that say this of their data, and the hash of its knees."""
    folder.mkdir(exist_ok=True)
    (folder / "own.toml").write_text(f'source = "table"\n{told}\n{RULE}', "utf-8")
    rules = read_rules(folder / "own.toml", "table")
    knees = pl.DataFrame({
        "knee": ["1/L"], "SOPInstanceUID": ["1"], "StudyInstanceUID": ["1"], "PatientID": ["P"], "path": ["a.dcm"],
        "side": ["L"], "pain": [3.0],
    })  # fmt: skip
    kinds = {name: kind for name, kind in knees.schema.items() if name != "pain"}
    source = Source("table", knees, ("pain",), (), columns=kinds)
    write(select(source, rules), source, rules, folder / "cohort")
    return folder / "cohort", hashlib.sha256((folder / "cohort" / "cohort.parquet").read_bytes()).hexdigest()


def test_the_rules_say_it_and_the_cohort_keeps_it(tmp_path: Path) -> None:
    cohort, digest = cohort_of(tmp_path, 'data = "Clinic of\\n X"\nlicence = "by agreement"')
    assert origin_of(cohort, digest) == Origin("table", "Clinic of X", "by agreement", False)
    assert origin_of(cohort, "0" * 64) == Origin(), "other knees lie there now"
    silent, digest = cohort_of(tmp_path / "silent", "")
    assert origin_of(silent, digest) == Origin("table", "not told", "not told", False)
    assert origin_of(tmp_path / "gone", digest) == Origin()


@pytest.mark.parametrize("told", ['data = ""', "licence = 3", 'data = ["a"]'])
def test_what_is_no_text_is_refused(told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.toml: (data|licence) is .*; it must be text about the data"):
        cohort_of(tmp_path, told)


def test_a_damaged_description_is_an_error(tmp_path: Path) -> None:
    cohort, digest = cohort_of(tmp_path, "")
    for damaged, match in (("{", "cannot be read"), ("[]", "cannot be read"), ('{"licence": 1}', "is no text")):
        (cohort / "cohort.json").write_text(damaged, "utf-8")
        with pytest.raises(DataError, match=match):
            origin_of(cohort, digest)


@pytest.mark.parametrize(
    ("source", "data", "licence"),
    [
        ("mrkr", "Emory Knee Radiograph", "CC BY-SA"),
        ("oai_xr", "Osteoarthritis Initiative", "no open licence"),
        ("oai_mri", "Osteoarthritis Initiative", "no open licence"),
    ],
)
def test_rules_that_come_with_genu_say_it(source: str, data: str, licence: str) -> None:
    rules = read_rules(shipped(source), source)
    assert data in rules.data and licence in rules.licence


def test_the_bundle_and_its_card_name_them(tmp_path: Path) -> None:
    run, weights = made_run(tmp_path)
    cohort, digest = cohort_of(tmp_path, 'data = "MRKR *<b>"\nlicence = "CC BY-SA"')
    values = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps(values | {"cohort": str(cohort), "cohort_sha256": digest}), "utf-8")
    export_run(run, "system", tmp_path / "out", weights=str(weights))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text("utf-8")
    assert "Source of the data: MRKR \\*&lt;b> (cohort `table`). Licence of the data: CC BY-SA." in card
    told = json.loads((tmp_path / "out" / "bundle.json").read_text("utf-8"))["training"]["data"]
    assert told == {"source": "table", "name": "MRKR *<b>", "licence": "CC BY-SA", "made": False}


def test_made_knees_are_never_called_a_patients() -> None:
    (said,) = data_source(Origin("mrkr", "MRKR", "CC BY-SA", True).to_json())
    assert "**made knees**" in said and "no patient's" in said and "Licence" not in said
