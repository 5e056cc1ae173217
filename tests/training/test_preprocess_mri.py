"""`genu-train preprocess`: cohorts and exports to stored slices, resumed, refused, and out as NIfTI."""

import csv
import dataclasses
import itertools
from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import pytest
import SimpleITK
from scipy import ndimage

from inference.bias import BiasSpec
from inference.errors import DataError, UsageError
from inference.findings import Side
from inference.mr_sequences import MRSequence
from inference.mr_series import select_series
from inference.reading import group_studies
from inference.volumes import VolumeSpec, prepare_volume
from tests.mr_phantoms import LANDMARKS, Grid, enhanced_series, landmark, mr_series, write
from training import preprocess_worker
from training.cli import main
from training.nifti import write_nifti
from training.prepared import PreparedStore
from training.preprocess_mri import PreprocessPlan, default_spec, preprocess

SPEC = dataclasses.replace(VolumeSpec.default(MRSequence.COR_IW_TSE), size=32, bias=BiasSpec(iterations=(2,)))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cohort_of(folder: Path, knees: list[tuple[str, str, str, str]]) -> Path:
    """knees: UID, path, sequence, side; every series in two windows."""
    table = [
        {"knee": f"{uid}/{side}/{window}", "SeriesInstanceUID": uid, "path": path, "sequence": sequence, "side": side}
        for uid, path, sequence, side in knees
        for window in ("0-12", "12-24")
    ]
    folder.mkdir()
    pl.DataFrame(table).write_parquet(folder / "cohort.parquet")
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Two fit coronal series, a right and a left one; one with a slice missing; one of the wrong side; a DESS."""
    folder = tmp_path / "export"
    write(mr_series("L", identity="left", shuffle=1), folder / "left")
    write(enhanced_series("R", identity="right"), folder / "right")
    gap = mr_series("L", identity="gap")
    write(gap[:5] + gap[6:], folder / "gap")
    write(mr_series("R", identity="wrong", description="COR_IW_TSE_RIGHT"), folder / "wrong")
    sagittal = {"description": "SAG_3D_DESS", "timing": "dess"}
    write(mr_series("L", Grid("sagittal", slices=16), identity="dess", **sagittal), folder / "dess")  # type: ignore[arg-type]
    return folder


@pytest.fixture
def cohort(export: Path, tmp_path: Path) -> Path:
    found = {study.instances[0].path.parent.name: study.instances[0] for study in group_studies([export])}
    sides = {"left": "L", "right": "R", "gap": "L", "wrong": "L", "dess": "L"}
    names = {name: "SAG_3D_DESS" if name == "dess" else "COR_IW_TSE" for name in sides}
    knees = [(found[name].series_instance_uid, name, names[name], side) for name, side in sides.items()]
    return cohort_of(tmp_path / "cohort", knees)


def test_a_cohort_to_slices_and_back(export: Path, cohort: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", []
    plan = PreprocessPlan(export, out, SPEC, cohort, workers=0)
    report = preprocess(plan, lambda *counts: said.append(counts))
    assert (report.prepared, report.cached, report.failed) == (2, 0, 2)
    assert said[-1] == (4, 4, 2)
    store = PreparedStore(out)
    assert store.spec == SPEC
    knees = pl.read_parquet(cohort / "cohort.parquet")["knee"].to_list()
    fit = [knee for knee in knees if knee in store]
    assert len(fit) == 4, "two windows each"
    slices = store.slices(fit)
    assert slices.shape == (4, 8, 32, 32)
    assert slices.dtype == np.float16
    for knee, found in zip(fit, slices, strict=True):
        (study,) = [s for s in group_studies([export]) if s.instances[0].series_instance_uid == knee.split("/")[0]]
        (series,) = select_series(study.instances, MRSequence.COR_IW_TSE, side=Side(knee.split("/")[1])).chosen
        again = prepare_volume(series, SPEC)
        assert np.array_equal(found, again.slices.astype(np.float16)), "the same code in training and inference"
        assert store.map(knee) == again.map
        assert store.side(knee) == series.side
    codes = {row["code"]: row["reason"] for row in rows(out / "failures.csv")}
    assert set(codes) == {"inconsistent_geometry", "side_contradictory"}
    assert "a slice is missing" in codes["inconsistent_geometry"]
    with pytest.raises(DataError, match=r"no slices of 4 of 8 knees.*failures\.csv"):
        store.slices([knee for knee in knees if "dess" not in knee][:8])


def test_what_is_there_is_not_read_again(
    export: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = PreprocessPlan(export, out, SPEC, cohort, workers=0)
    preprocess(plan)
    store = {path.name: path.stat().st_mtime_ns for path in (out / "slices").rglob("*.safetensors")}
    read: list[str] = []
    plain = preprocess_worker._instances
    monkeypatch.setattr(preprocess_worker, "_instances", lambda task: read.append(task.name) or plain(task))
    assert preprocess(plan).cached == 2
    assert read == []
    # A kill in the middle of the journal's last line, a file touched, a file gone.
    journal = out / "done.jsonl"
    journal.write_text(journal.read_text("utf-8")[:-40], encoding="utf-8")
    assert preprocess(plan).cached >= 1
    assert len(read) == 1, "only the torn one"
    touched = next((export / "left").iterdir())
    touched.touch()
    report = preprocess(plan)
    assert (report.prepared, report.cached, len(read)) == (2, 1, 2)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "slices").rglob("*.safetensors")} == store
    next((out / "slices").rglob("*.safetensors")).unlink()
    assert preprocess(plan).prepared == 2
    assert len(read) == 3
    assert PreparedStore(out).slices(PreparedStore(out).keys).shape[0] == 2


def test_changed_pixels_are_prepared_anew(export: Path, cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = PreprocessPlan(export, out, SPEC, cohort, workers=0)
    preprocess(plan)
    uid = next(knee for knee in PreparedStore(out).keys if PreparedStore(out).side(knee) == "L")
    before = PreparedStore(out).slices([uid])
    changed = mr_series("L", identity="left")
    for ds in changed:
        ds.PixelData = (ds.pixel_array[:, ::-1].copy()).tobytes()
    write(changed, export / "left")
    preprocess(plan)
    assert not np.array_equal(PreparedStore(out).slices([uid]), before)


def test_processes_give_the_same_files(export: Path, cohort: Path, tmp_path: Path) -> None:
    one, two = (PreprocessPlan(export, tmp_path / f"{n}", SPEC, cohort, workers=n) for n in (0, 2))
    assert preprocess(one).prepared == preprocess(two).prepared
    for name in ("series.parquet", "failures.csv", "choices.csv", "spec.json"):
        assert (one.out / name).read_bytes() == (two.out / name).read_bytes(), name
    files = sorted(path.relative_to(one.out) for path in (one.out / "slices").rglob("*.safetensors"))
    assert len(files) == 2
    for file in files:
        assert (one.out / file).read_bytes() == (two.out / file).read_bytes()


@pytest.mark.parametrize("indexed", [False, True])
def test_an_export_without_a_cohort(export: Path, tmp_path: Path, indexed: bool) -> None:
    if indexed:
        assert main(["index", str(export)]) == 0
    report = preprocess(PreprocessPlan(export, tmp_path / "out", SPEC, workers=0))
    assert report.prepared == 3
    assert report.failed == 2
    choices = rows(tmp_path / "out" / "choices.csv")
    assert {row["decision"] for row in choices} == {"taken", "refused"}
    taken = [row for row in choices if row["decision"] == "taken"]
    assert all("sequence: SeriesDescription" in row["evidence"] and "side: " in row["evidence"] for row in taken)
    assert sorted(row["side"] for row in taken) == ["L", "R", "R"]
    assert {row["code"] for row in choices if row["code"]} == {"inconsistent_geometry", "wrong_plane"}


def test_the_command(export: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["preprocess", "--export", str(export), "--out", str(out), "--size", "16", "--workers", "0"]
    assert main([*command, "--cohort", str(cohort), "--sequence", "SAG_3D_DESS", "--no-n4", "--nifti"]) == 0
    assert "1 series prepared" in capsys.readouterr().out
    assert PreparedStore(out).shape == (64, 16, 16)
    assert len(list((out / "nifti").glob("*.nii.gz"))) == 1
    assert main([*command, "--sequence", "cor_iw_tse"]) == 2
    assert "prepared in another way" in capsys.readouterr().err
    for wrong in (["--sequence", "t2"], ["--percentiles", "80", "10"], ["--workers", "-1"], ["--slices", "0"]):
        assert main([*command, "--out", str(tmp_path / "other"), *wrong]) == 2
    assert main([*command, "--cohort", str(cohort), "--side", "L"]) == 2


def test_odd_cohorts_are_errors_that_name_them(export: Path, tmp_path: Path) -> None:
    def run(folder: Path, spec: VolumeSpec = SPEC) -> None:
        preprocess(PreprocessPlan(export, tmp_path / "out", spec, folder, workers=0))

    with pytest.raises(DataError, match=r"leads out of the export"):
        run(cohort_of(tmp_path / "out_of", [("1.2", "../left", "COR_IW_TSE", "L")]))
    with pytest.raises(DataError, match=r"without UID, path or side"):
        run(cohort_of(tmp_path / "side", [("1.2", "left", "COR_IW_TSE", "B")]))
    with pytest.raises(DataError, match=r"two sides or two paths"):
        run(cohort_of(tmp_path / "two", [("1.2", "left", "COR_IW_TSE", "L"), ("1.2", "gap", "COR_IW_TSE", "L")]))
    with pytest.raises(DataError, match=r"its sequences are SAG_IW_TSE"):
        run(cohort_of(tmp_path / "none", [("1.2", "left", "SAG_IW_TSE", "L")]))
    with pytest.raises(DataError, match=r"cohort\.parquet cannot be read"):
        run(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no prepared slices"):
        PreparedStore(tmp_path / "out")
    with pytest.raises(UsageError):
        default_spec("t2")


FLIPS = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (10.0, 14.0, 20.0)])
def test_nifti_lies_where_the_patient_lay(tmp_path: Path, plane: str, tilt: tuple[float, float, float]) -> None:
    """Each landmark is found at its place (RAS for nibabel, LPS for SimpleITK), however the series was taken."""
    sequence = MRSequence.COR_IW_TSE if plane == "coronal" else MRSequence.SAG_3D_DESS
    described = {} if plane == "coronal" else {"description": "SAG_3D_DESS", "timing": "dess"}
    for number, (across, down, transpose) in enumerate(FLIPS):
        side = "LR"[number % 2]
        grid = Grid(plane, 19, 40, 44, 2.6, 2.4, 4.0, across, down, transpose, tilt)
        write(mr_series(side, grid, shuffle=number, **described), tmp_path / str(number))  # type: ignore[arg-type]
        (study,) = group_studies([tmp_path / str(number)])
        (series,) = select_series(study.instances, sequence).chosen
        path = tmp_path / f"{number}.nii.gz"
        write_nifti(series, path)
        image = nibabel.load(path)
        values = np.asarray(image.dataobj, float)
        assert values.shape == (44, 40, 19)
        itk = SimpleITK.ReadImage(str(path))
        for name in LANDMARKS:
            place = landmark(name, side)
            voxel = np.linalg.solve(image.affine, [-place[0], -place[1], place[2], 1])[:3]
            peak = _centre(values, voxel)
            assert np.linalg.norm((peak - voxel) * [2.4, 2.6, 4.0]) < 1.5, (name, number)
            physical = np.array(itk.TransformContinuousIndexToPhysicalPoint([float(v) for v in peak]))
            assert np.linalg.norm(physical - place) < 1.5, (name, number)
        assert np.allclose(image.get_qform(), image.affine, atol=1e-3)


def _centre(values: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """The brightest place near a voxel, between voxels."""
    smooth = ndimage.gaussian_filter(values, (1.0, 1.0, 0.6))
    low = np.maximum(np.round(voxel).astype(int) - 2, 0)
    part = smooth[tuple(slice(a, a + 5) for a in low)]
    weights = np.clip(part - np.percentile(part, 85), 0, None)
    return low + np.array(ndimage.center_of_mass(weights))


def test_nifti_gives_the_same_bytes_again_and_real_values(tmp_path: Path) -> None:
    write(mr_series("L", attributes={"RescaleSlope": "0.5", "RescaleIntercept": "3"}), tmp_path / "s")
    (study,) = group_studies([tmp_path / "s"])
    (series,) = select_series(study.instances, MRSequence.COR_IW_TSE).chosen
    for name in "ab":
        write_nifti(series, tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    image = nibabel.load(tmp_path / "a.nii.gz")
    raw = np.stack([one.pixel_array for one in mr_series("L")]) * 0.5 + 3
    assert np.allclose(np.asarray(image.dataobj).transpose(2, 1, 0), raw)
