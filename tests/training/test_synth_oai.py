"""A made OAI: the cohort finds the very rows, labels and counts that were planned, and the pixels show what is true."""

import json
import subprocess
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from inference.errors import UsageError
from tests.training import oai_release
from training import cli
from training.cohorts import oai_mri
from training.cohorts.rows import select
from training.cohorts.rules import read_rules, shipped
from training.synth_oai import make_oai
from training.synth_oai_dicom import FIELD, knee_centre
from training.synth_oai_plan import EFFECTS, TABLES, KneeVisit, Participant, effects, plan
from training.synth_oai_scene import LESIONS, Look, draw
from training.synth_oai_truth import RULES, TARGETS, truth

FLAT = Look(lesion=0.0, space=4.0, effusion=0.0, size=1.0, bias=(0.0,) * 6, noise=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("oai")
    arguments = ["--patients", "4", "--seed", "2", "--slices", "11", "--size", "48"]
    assert cli.main(["synth", "oai", "--out", str(out), *arguments]) == 0
    assert cli.main(["index", str(out / "images"), "--workers", "1"]) == 0
    return out


@pytest.mark.parametrize(("seed", "followup"), [(0, 12), (1, 24)])
def test_every_count_of_every_rule_and_every_row_is_what_was_planned(tmp_path: Path, seed: int, followup: int) -> None:
    people = oai_release.make(tmp_path, 50, seed)
    known = truth(people)
    for target in TARGETS:
        rules = read_rules(shipped("oai_mri"), "oai_mri", {"target": target, "followup": followup})
        source = oai_mri.read(tmp_path / "tables", tmp_path / "index.parquet", tmp_path / "images", rules.parameters)
        cohort = select(source, rules)
        found = [{"rule": step.name, **asdict(step.kept)} for step in cohort.steps]
        assert found == known["flow"][str(followup)][target]
        planned = {key: row for key, row in known["rows"][str(followup)].items() if row[target] is not None}
        rows = {row["knee"]: row for row in cohort.knees.to_dicts()}
        assert rows.keys() == planned.keys()
        for key, row in planned.items():
            for name in row.keys() - {"lesion", "risk"}:
                assert rows[key][name] == pytest.approx(row[name]), (key, name)


def test_every_rule_has_something_to_drop() -> None:
    flows = truth(plan(400, 0, effects(), 11))["flow"]["12"]
    for target, flow in flows.items():
        series = [step["series"] for step in flow]
        idle = {rule for rule, a, b in zip(RULES, series, series[1:], strict=False) if a == b}
        never = {
            "progression_abs": {"label"}, "progression_rel": set(), "womac_pain_binary": {"known at the follow-up"},
            "womac_pain_class": {"known at the follow-up", "label"},
        }  # fmt: skip
        assert [step["rule"] for step in flow[1:]] == list(RULES)
        assert idle == never[target], target


def test_the_commands_lead_to_the_planned_cohort(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["cohort", "oai-mri", "--export", str(made / "images"), "--tables", str(made / "tables")]
    assert cli.main([*base, "--out", str(made / "cohort")]) == 0
    known = json.loads((made / "truth.json").read_text("utf-8"))
    cohort = pl.read_parquet(made / "cohort" / "cohort.parquet")
    planned = {key for key, row in known["rows"]["12"].items() if row["progression_abs"] is not None}
    assert set(cohort["knee"]) == planned
    assert f"{len(planned)} series of" in capsys.readouterr().out
    for path, slices in cohort.select("path", "slices").rows():
        assert len(list((made / "images" / path).iterdir())) == slices
    content = json.loads((made / "cohort" / "cohort.json").read_text("utf-8"))
    assert content["made"] is True
    assert content["counts"]["series"] == len(planned)
    assert content["flow"][1:] != []
    first = {path.name: path.read_bytes() for path in (made / "cohort").iterdir()}
    assert cli.main([*base, "--out", str(made / "again")]) == 0
    assert {path.name: path.read_bytes() for path in (made / "again").iterdir()} == first


def test_the_index_has_what_series_need(made: Path) -> None:
    index = pl.read_parquet(made / "images" / "index.parquet").filter(
        pl.col("reason").is_null(), pl.col("Modality") == "MR"
    )
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SpacingBetweenSlices",
                 "SliceThickness", "InstanceNumber", "SeriesInstanceUID", "PatientSex", "PatientAge",
                 "MRAcquisitionType", "EchoTime", "RepetitionTime", "StudyDate", "FrameOfReferenceUID"):  # fmt: skip
        assert index[name].null_count() == 0, name
    assert 0 < index["SeriesDescription"].null_count() < len(index) / 5
    assert set(index["ImageOrientationPatient"].list.len()) == {6}


def test_the_files_that_are_written_are_the_same_every_time(made: Path, tmp_path: Path) -> None:
    make_oai(tmp_path, 4, 2, slices=11, size=48)
    again = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(again) > 400
    for name, path in again.items():
        assert (made / name).read_bytes() == path.read_bytes(), name


def test_the_slices_are_valid_mr(made: Path) -> None:
    folders = sorted(path for path in (made / "images" / "00m").glob("*/*/*/*") if path.is_dir())
    for folder in folders[::4]:
        try:
            found = subprocess.run(
                ["dciodvfy", str(folder / "001")], capture_output=True, text=True, check=False
            ).stderr
        except FileNotFoundError:
            pytest.skip("dciodvfy is missing: apt-get install dicom3tools")
        lines = [line for line in found.splitlines() if line.startswith(("Error", "Warning"))]
        assert [line for line in lines if "<Laterality>" not in line] == [], folder  # some scanners leave it empty


class Volume:
    """A series read again, its voxels found by what the headers say."""

    def __init__(self, folder: Path) -> None:
        self.slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        self.order = [np.array(ds.ImagePositionPatient, float) for ds in self.slices]

    def at(self, point: np.ndarray) -> float:
        """The mean about a point of the patient (LPS, mm)."""
        first = self.slices[0]
        row, column = np.split(np.array(first.ImageOrientationPatient, float), 2)
        normal = np.cross(row, column)
        ds, corner = min(zip(self.slices, self.order, strict=True), key=lambda pair: abs((point - pair[1]) @ normal))
        spacing = float(first.PixelSpacing[0])
        r, c = (round(float((point - corner) @ way) / spacing) for way in (column, row))
        return float(ds.pixel_array[r - 1 : r + 2, c - 1 : c + 2].mean() / np.percentile(ds.pixel_array, 99))


def whole_series(made: Path) -> list[tuple[dict[str, Any], Volume]]:
    known = json.loads((made / "truth.json").read_text("utf-8"))["rows"]["12"]
    return [(row, Volume(made / "images" / row["path"])) for row in known.values()]


def test_geometry_is_that_of_the_drawn_knee(made: Path) -> None:
    tilts, orders = [], set()
    for row, volume in whole_series(made):
        first = volume.slices[0]
        cosines = np.array(first.ImageOrientationPatient, float)
        normal = np.cross(cosines[:3], cosines[3:])
        assert np.abs(normal).argmax() == (1 if row["sequence"].startswith("COR") else 0)
        tilts.append(float(np.degrees(np.arccos(np.abs(normal).max()))))
        depth = [corner @ normal for corner in volume.order]
        steps = np.diff(sorted(depth))
        assert np.allclose(steps, float(first.SpacingBetweenSlices), atol=1e-4)
        numbers = np.argsort(depth)
        ascending, descending = list(range(len(depth))), list(range(len(depth)))[::-1]
        orders.add("up" if list(numbers) == ascending else "down" if list(numbers) == descending else "shuffled")
        assert float(first.PixelSpacing[0]) * first.Rows == pytest.approx(FIELD, abs=1e-3)
        outward = np.array([1.0 if row["side"] == "L" else -1.0, 1.0, 1.0])
        centre = knee_centre(row["side"])
        fibula, mirrored = np.array([38.0, 16, -26]), np.array([-38.0, 16, -26])
        if row["sequence"].startswith("SAG"):  # fat-suppressed: bone is darker than muscle
            assert volume.at(centre + fibula * outward) < volume.at(centre + mirrored * outward)
    assert max(tilts) > 3
    assert orders == {"up", "down", "shuffled"}


def test_the_lesion_lies_where_it_is_said_to_be(made: Path) -> None:
    met = set()
    for row, volume in whole_series(made):
        outward = np.array([1.0 if row["side"] == "L" else -1.0, 1.0, 1.0])
        centre = knee_centre(row["side"])
        below = volume.at(centre + np.array((-10.0, 2, -45)) * outward)  # the tibia, further down
        if row["lesion"] > 0.25:
            ratio = volume.at(centre + np.array(LESIONS[0]) * outward) / below
            # Dark in bright marrow, bright where fat is suppressed.
            assert ratio < 0.8 if row["sequence"] == "COR_IW_TSE" else ratio > 1.25, row["path"]
            met.add((row["sequence"], row["side"]))
    assert len(met) == 6


@pytest.mark.parametrize("sequence", ["COR_IW_TSE", "SAG_IW_TSE", "SAG_3D_DESS"])
def test_a_stronger_lesion_is_larger(sequence: str) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-40, 41, 2.0)] * 3, indexing="ij")).astype(np.float32)
    plain = draw(grid, sequence, FLAT, np.random.default_rng(0))
    changed = [
        int((np.abs(draw(grid, sequence, replace(FLAT, lesion=lesion), np.random.default_rng(0)) - plain) > 0.05).sum())
        for lesion in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert changed[0] == 0
    assert all(more > 1.4 * fewer for fewer, more in pairwise(changed[1:]))
    assert changed[1] > 10


def test_a_knee_is_not_its_mirror_image_and_narrows_medially() -> None:
    grid = np.stack(np.meshgrid(np.arange(-50, 51, 2.0), [0.0], np.arange(40, -41, -1.0), indexing="ij")).astype(
        np.float32
    )
    rng = np.random.default_rng(0)
    wide = draw(grid, "COR_IW_TSE", FLAT, rng)[:, 0].T
    narrow = draw(grid, "COR_IW_TSE", replace(FLAT, space=0.5), rng)[:, 0].T
    assert np.abs(wide - wide[:, ::-1]).mean() > 0.02
    changed = np.abs(wide - narrow)
    assert changed[:, :22].sum() > 5 * changed[:, 29:].sum()
    full = draw(grid, "COR_IW_TSE", replace(FLAT, lesion=1.0), rng)[:, 0].T
    assert (wide - full)[:, :25].max() > 0.2
    assert np.array_equal(full[:, 34:], wide[:, 34:])


def knee_years(people: list[Participant]) -> list[tuple[KneeVisit, int]]:
    """Knees at a visit, and whether they lose 0.5 mm in the year to come."""
    result = []
    for person in people:
        for side in "RL":
            knees = [person.knees[visit, side] for visit in TABLES]
            result += [
                (now, int(now.drawn_space - later.drawn_space >= 500))
                for now, later in pairwise(knees)
                if now.drawn_space > 2400
            ]
    return result


def test_the_planted_effects_come_back() -> None:
    people = plan(1500, 4, effects({"jsw": 0.8, "image": 3.0, "base": -1.0, "pain_base": 4.0}), 8)
    pairs = knee_years(people)
    values = np.array([(4.2 - knee.drawn_space / 1000, knee.lesion - 0.5) for knee, _ in pairs])
    lost = np.array([label for _, label in pairs])
    fitted = LogisticRegression(C=1e6).fit(values, lost)
    assert np.allclose([*fitted.coef_[0], fitted.intercept_[0]], [0.8, 3.0, -1.0], atol=0.25)
    asked = [(k.lesion, k.kl, 1.0, k.pain) for p in people for k in p.knees.values() if k.pain is not None]
    points = np.array(asked, float)
    found = np.linalg.lstsq(points[:, :3], points[:, 3], rcond=None)[0]
    assert np.allclose(found, [EFFECTS["pain_image"], EFFECTS["pain_kl"], 4.0], atol=0.15)


def test_where_nothing_is_planted_there_is_nothing() -> None:
    none = dict.fromkeys(("jsw", "image", "pain_image", "pain_kl"), 0.0)
    people = plan(1200, 5, effects({**none, "pain_base": 3.0}), 8)
    pairs = knee_years(people)
    lost = np.array([label for _, label in pairs])
    for value in ("lesion", "drawn_space", "kl"):
        auc = roc_auc_score(lost, [getattr(knee, value) for knee, _ in pairs])
        assert abs(auc - 0.5) < 0.035, value
    asked = [knee for person in people for knee in person.knees.values() if knee.pain is not None]
    assert abs(np.corrcoef([k.lesion for k in asked], [k.pain or 0 for k in asked])[0, 1]) < 0.03


def test_a_participant_depends_on_seed_and_number_only() -> None:
    assert plan(5, 7, EFFECTS, 8) == plan(9, 7, EFFECTS, 8)[:5]
    assert plan(5, 7, EFFECTS, 8) != plan(5, 8, EFFECTS, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["oai", "--effect", "luck=1"], "there is no effect luck; there are base, jsw, image"),
        (["oai", "--effect", "pain_noise=-1"], "standard deviation"),
        (["oai", "--effect", "image=nan"], "must be a finite number"),
        (["oai", "--patients", "0"], "must be 1 or more"),
        (["oai", "--slices", "5"], "11 to 100 slices"),
        (["oai", "--size", "8"], "32 to 512 pixels"),
        (["mrkr", "--slices", "12"], "--slices and --size are for oai"),
    ],
)
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert cli.main(["synth", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_effects_are_checked() -> None:
    with pytest.raises(UsageError, match="there are base, jsw"):
        effects({"kl": 1})


def test_what_was_not_made_here_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "real.dcm").write_bytes(b"a patient's")
    with pytest.raises(UsageError, match="was not made here and would be deleted"):
        make_oai(tmp_path, 1)
    assert (tmp_path / "images" / "real.dcm").read_bytes() == b"a patient's"
