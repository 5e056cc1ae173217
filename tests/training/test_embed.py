"""Frozen embeddings: the cache that a second run lives on, kills, torn shards, films as they are stored, failures."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydicom import dcmread
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from inference import bert
from inference.backbones import network_input
from inference.errors import BundleError, DataError, UsageError
from inference.frozen import FrozenBackbone, load_frozen
from inference.preprocess import PreprocessSpec
from tests import phantom_pixels, phantoms
from training import embed_decode, knee_work
from training.cli import main
from training.embed import EmbedPlan, describe, embed
from training.embed_knees import Film, films, read_cohort, read_film
from training.embed_standins import write_standin
from training.embed_weights import load_weights
from training.embeddings import EmbeddingStore

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """An export and the cohort of it."""

    def __init__(self, folder: Path) -> None:
        self.export, self.cohort = folder / "export", folder / "cohort"
        self.rows: list[dict[str, Any]] = []

    def film(self, name: str, pixels: np.ndarray, sides: str, stated: str | None = None, **flags: bool) -> None:
        ds = phantoms.wrap_dx(pixels, stated or (sides if len(sides) == 1 else "B"), identity=name, bits=12)
        phantoms.write(ds, self.export / f"{name}.dcm")
        for side in sides:
            self.row(str(ds.SOPInstanceUID), f"{name}.dcm", side, bilateral=len(sides) == 2, **flags)

    def row(self, uid: str, path: str, side: str, **flags: bool) -> None:
        values = {"bilateral": False, "flipped": False, "inverted": False, **flags}
        self.rows.append(
            {"knee": f"{uid}/{side}", "SOPInstanceUID": uid, "path": path, "PatientID": path, "side": side, **values}
            | {"kl": None, "pain": 3.0}
        )

    def write(self) -> None:
        self.cohort.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.rows), self.cohort / "cohort.parquet")

    def knee(self, path: str, side: str) -> str:
        return next(r["knee"] for r in self.rows if (r["path"], r["side"]) == (f"{path}.dcm", side))

    def plan(self, out: Path, **options: Any) -> EmbedPlan:
        chosen = {"backbone": "rad_dino", "workers": 0, "batch": 2, "device": "cpu"} | options
        return EmbedPlan(cohort=self.cohort, export=self.export, out=out, **chosen)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("weights")
    return {name: str(write_standin(name, root / name)) for name in ("rad_dino", "biomedclip", "convnext_small")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Four films, five knees: a left one, a right one, both, and a second left one."""
    made = Site(tmp_path)
    made.film("left", phantom_pixels.knee("L", seed=1), "L")
    made.film("right", phantom_pixels.knee("R", seed=2), "R")
    made.film("both", phantom_pixels.bilateral(seed=3), "RL")
    made.film("other", phantom_pixels.knee("L", seed=4), "L")
    made.write()
    return made


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches that went through a backbone."""
    seen: list[int] = []
    plain = FrozenBackbone.features

    def counted(self: FrozenBackbone, images: torch.Tensor, wanted: Any = "pooled") -> dict[str, torch.Tensor]:
        seen.append(len(images))
        return plain(self, images, wanted)

    monkeypatch.setattr(FrozenBackbone, "features", counted)
    return seen


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The films that were decoded or at least looked at, hashing apart."""
    seen: list[str] = []

    def counted(film: Film) -> Any:
        seen.append(film.path.stem)
        return read_film(film)

    monkeypatch.setattr(embed_decode, "read_film", counted)
    return seen


def failures(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "failures.csv").open(newline="") as file:
        return {row["knee"]: (row["code"], row["reason"]) for row in csv.DictReader(file)}


def test_what_is_stored_is_what_the_backbone_says_of_the_crop(
    site: Site, weights: dict[str, str], tmp_path: Path
) -> None:
    report = embed(site.plan(tmp_path / "out", weights=weights["rad_dino"]))
    assert (report.knees, report.embedded, report.cached, report.failed, report.batches) == (5, 5, 0, 0, 3)
    store = EmbeddingStore(tmp_path / "out")
    assert store.keys == tuple(sorted(row["knee"] for row in site.rows))
    assert (store.spec.synthetic, store.spec.deployed_use, store.spec.width) == (True, False, 32)
    assert store.spec.input.pad_to_square
    backbone = load_frozen("rad_dino", Path(weights["rad_dino"]))
    rows = read_cohort(site.cohort)
    for film in films(site.export, rows, store.spec.crop, {}):
        for knee in read_film(film):
            assert knee.crop is not None
            crop = torch.from_numpy(knee.crop)[None, None].float() / 255
            expected = backbone.features(network_input(crop, backbone.input))["pooled"].numpy()
            assert np.allclose(store.matrix([knee.row.knee]), expected, atol=1e-5)
    backwards = store.keys[::-1]
    assert np.array_equal(store.matrix(backwards), store.matrix(store.keys)[::-1])
    assert store.matrix(store.keys).dtype == np.float32
    assert str(tmp_path) not in (tmp_path / "out" / "spec.json").read_text()


def test_a_second_run_sends_nothing_through_the_network_and_decodes_nothing(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int], reads: list[str]
) -> None:
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(plan)
    before = EmbeddingStore(plan.out).matrix(EmbeddingStore(plan.out).keys)
    assert (forwards, len(reads)) == ([2, 2, 1], 4)
    report = embed(plan)
    assert (forwards, len(reads)) == ([2, 2, 1], 4)
    assert (report.embedded, report.cached, report.batches) == (0, 5, 0)
    assert np.array_equal(EmbeddingStore(plan.out).matrix(EmbeddingStore(plan.out).keys), before)


def changed_pixels(site: Site) -> None:
    path = site.export / "left.dcm"
    ds = dcmread(path)
    pixels = ds.pixel_array.copy()
    pixels[150:250, 100:200] = pixels[150:250, 100:200] * 0.9
    ds.PixelData = pixels.tobytes()
    status = path.stat()
    ds.save_as(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # neither size nor time tell


def changed_name(site: Site) -> None:
    ds = dcmread(site.export / "left.dcm")
    ds.PatientName = "PHANTOM^OTHER"
    ds.save_as(site.export / "left.dcm")


@pytest.mark.parametrize(("change", "again"), [(changed_pixels, 1), (changed_name, 0)])
def test_only_changed_pixels_are_computed_again(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int], reads: list[str],
    change: Callable[[Site], None], again: int,
) -> None:  # fmt: skip
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(plan)
    before = EmbeddingStore(plan.out)
    old = before.matrix(before.keys)
    del forwards[:], reads[:]
    change(site)
    report = embed(plan)
    assert (report.embedded, sum(forwards), reads) == (again, again, ["left"])
    store = EmbeddingStore(plan.out)
    differing = {
        key for key, one, two in zip(store.keys, old, store.matrix(store.keys), strict=True) if (one != two).any()
    }
    assert differing == ({site.knee("left", "L")} if again else set())


@pytest.mark.parametrize("what", ["weights", "preprocessing", "precision", "features", "backbone"])
def test_any_other_change_is_a_miss_and_the_way_back_a_hit(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int], what: str
) -> None:
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(plan)
    crop = EmbeddingStore(plan.out).spec.crop
    changes: dict[str, dict[str, Any]] = {
        "weights": {"weights": str(write_standin("rad_dino", tmp_path / "seed", seed=1))},
        "preprocessing": {"crop": replace(crop, flat_below=0.0)},
        "precision": {"precision": "bf16"},
        "features": {"features": "layers"},
        "backbone": {"backbone": "convnext_small", "weights": weights["convnext_small"]},
    }
    del forwards[:]
    report = embed(replace(plan, **changes[what]))
    # Not equalising changes nothing of crops that are not flat; the rest of the key changes all the same.
    assert (report.embedded, sum(forwards)) == (5, 5)
    changed = EmbeddingStore(plan.out).spec
    del forwards[:]
    assert (embed(plan).cached, forwards) == (5, [])
    assert EmbeddingStore(plan.out).spec != changed


def test_films_are_turned_back_before_they_are_read(site: Site, weights: dict[str, str], tmp_path: Path) -> None:
    both = phantom_pixels.bilateral(seed=3)
    site.film("flipped", both[:, ::-1], "RL", flipped=True)
    site.film("inverted", 1 - both, "RL", inverted=True)
    site.film("turned round", 1 - both[:, ::-1], "RL", flipped=True, inverted=True)
    site.write()
    report = embed(site.plan(tmp_path / "out", weights=weights["rad_dino"]))
    assert (report.failed, report.knees) == (0, 11)
    rows = read_cohort(site.cohort)
    crops = {
        (knee.row.path, knee.row.side): knee.crop
        for film in films(site.export, rows, PreprocessSpec(), {})
        for knee in read_film(film)
    }
    for side in "RL":
        plain = crops["both.dcm", side]
        assert plain is not None
        for name in ("flipped", "inverted", "turned round"):
            other = crops[f"{name}.dcm", side]
            assert other is not None
            assert np.abs(plain.astype(int) - other.astype(int)).mean() < 2, (side, name)
    right, left = crops["both.dcm", "R"], crops["both.dcm", "L"]
    assert right is not None and left is not None
    # Both on the canonical side: the fibula, bright and low, is at the right of each.
    for crop in (right, left):
        low = crop[-40:].astype(float)
        assert low[:, 112:].mean() > low[:, :112].mean()


def test_what_is_no_knee_or_contradicts_the_cohort_is_a_row_with_its_reason(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int], reads: list[str]
) -> None:
    both = phantom_pixels.bilateral(seed=5)
    site.film("chest", phantom_pixels.chest(), "L")
    site.film("mirrored", phantom_pixels.knee("R", seed=5), "L")  # the cohort does not know it
    site.film("dark", 1 - both, "RL")
    site.film("two", both, "L")
    site.row("1.2.3", "gone.dcm", "R")
    (site.export / "text.dcm").write_text("no DICOM")
    site.row("1.2.4", "text.dcm", "R")
    site.row("1.2.5", "left.dcm", "L")
    site.write()
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    report = embed(plan)
    found = failures(plan.out)
    codes = {name: found[site.knee(name, side)][0] for name, side in (("chest", "L"), ("mirrored", "L"), ("two", "L"))}
    assert codes == {"chest": "no_knee_found", "mirrored": "side_contradictory", "two": "side_unknown"}
    assert found[site.knee("dark", "R")][0] in ("poor_exposure", "no_knee_found")
    assert [found[name][0] for name in ("1.2.3/R", "1.2.4/R", "1.2.5/L")] == [
        "unreadable",
        "unreadable",
        "identity_contradictory",
    ]
    assert all(reason.endswith(".") for _, reason in found.values())
    store = EmbeddingStore(plan.out)
    assert set(store.keys) | set(found) == {row["knee"] for row in site.rows}
    assert (report.failed, report.embedded) == (len(found), 5)
    with pytest.raises(DataError, match=r"1 of 1 knees have no embedding.*failures\.csv"):
        store.matrix(["1.2.3/R"])
    del forwards[:], reads[:]
    again = embed(plan)
    # What was refused stays refused without a look; a missing file is looked for.
    assert (forwards, reads, failures(plan.out)) == ([], ["gone"], found)
    assert (again.failed, again.cached) == (len(found), 5)


def test_the_same_pixels_go_through_the_network_once(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int]
) -> None:
    site.film("copy", phantom_pixels.knee("L", seed=1), "L")
    site.write()
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    report = embed(plan)
    assert (report.embedded, report.cached, sum(forwards)) == (5, 1, 5)
    store = EmbeddingStore(plan.out)
    one, two = store.matrix([site.knee("left", "L"), site.knee("copy", "L")])
    assert np.array_equal(one, two)


KILLED = """
import os, signal, sys
from pathlib import Path
from training import embed, knee_work
knee_work.SHARD_KNEES = 2
def dies(done, total, failed):
    if done >= 4: os.kill(os.getpid(), signal.SIGKILL)
cohort, export, out, weights = sys.argv[1:]
plan = embed.EmbedPlan(Path(cohort), Path(export), Path(out), "rad_dino", weights, batch=2, workers=0, device="cpu")
embed.embed(plan, dies)
"""


def test_a_killed_run_goes_on_where_it_was(
    site: Site, weights: dict[str, str], tmp_path: Path, forwards: list[int]
) -> None:
    out = tmp_path / "out"
    arguments = [str(site.cohort), str(site.export), str(out), weights["rad_dino"]]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(DataError, match="goes on where it stopped"):
        EmbeddingStore(out)
    report = embed(site.plan(out, weights=weights["rad_dino"]))
    assert (report.cached, report.embedded, report.torn) == (4, 1, ())
    assert sum(forwards) == 1
    fresh = site.plan(tmp_path / "fresh", weights=weights["rad_dino"])
    embed(fresh)
    keys = EmbeddingStore(out).keys
    assert np.allclose(EmbeddingStore(out).matrix(keys), EmbeddingStore(fresh.out).matrix(keys), atol=1e-5)


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-7])


def flip(shard: Path) -> None:
    raw = bytearray(shard.read_bytes())
    raw[-5] ^= 1
    shard.write_bytes(bytes(raw))


def without_table(shard: Path) -> None:
    shard.with_suffix(".parquet").unlink()


def cut_table(shard: Path) -> None:
    cut(shard.with_suffix(".parquet"))


@pytest.mark.parametrize("damage", [cut, flip, without_table, cut_table, Path.unlink])
def test_a_torn_shard_is_noticed_and_made_again(
    site: Site, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(knee_work, "SHARD_KNEES", 2)
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(plan)
    before = EmbeddingStore(plan.out).matrix(EmbeddingStore(plan.out).keys)
    shards = sorted((tmp_path / "out").glob("*/shard-*.safetensors"))
    assert len(shards) == 3
    damage(shards[0])
    report = embed(plan)
    assert (report.torn, report.embedded, report.cached) == (("shard-000000",), 2, 3)
    assert np.allclose(EmbeddingStore(plan.out).matrix(EmbeddingStore(plan.out).keys), before, atol=1e-5)
    assert embed(plan).torn == ()


def test_processes_give_what_one_process_gives(site: Site, weights: dict[str, str], tmp_path: Path) -> None:
    alone = site.plan(tmp_path / "alone", weights=weights["rad_dino"])
    embed(alone)
    others = replace(alone, out=tmp_path / "others", workers=2)
    assert embed(others).embedded == 5
    one, two = EmbeddingStore(alone.out), EmbeddingStore(others.out)
    assert one.keys == two.keys
    assert np.allclose(one.matrix(one.keys), two.matrix(two.keys), atol=1e-5)


def test_no_more_films_are_held_than_the_queue_is_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = 0

    def counted(_: Film) -> list[Any]:
        nonlocal started
        started += 1
        return []

    monkeypatch.setattr(embed_decode, "read_film", counted)
    many = [Film(tmp_path, (), PreprocessSpec(), (frozenset(),)) for _ in range(100)]
    for taken, _ in enumerate(embed_decode.prepared(many, 2, threads=True), start=1):
        time.sleep(0.001)
        assert started - taken < 2 * embed_decode.AHEAD
    assert started == 100


def test_further_features_are_kept_where_they_are_asked_for(
    site: Site, weights: dict[str, str], tmp_path: Path
) -> None:
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(replace(plan, features="layers"))
    store = EmbeddingStore(plan.out)
    assert store.matrix(store.keys).shape == (5, 4 * 2 * 32)
    assert store.matrix(store.keys, "pooled").shape == (5, 32)
    assert np.allclose(store.matrix(store.keys)[:, -64:-32], store.matrix(store.keys, "pooled"), atol=1e-5)
    with pytest.raises(DataError, match="--features patches"):
        store.patches(store.keys)
    embed(replace(plan, features="patches"))
    patched = EmbeddingStore(plan.out)
    assert (patched.patches(patched.keys).shape, patched.patches(patched.keys).dtype) == ((5, 16, 32), np.float16)
    (shard,) = (plan.out / patched.spec.digest[:16]).glob("shard-*.safetensors")
    with safe_open(shard, framework="numpy") as file:
        assert str(file.get_tensor("patches").dtype) == "float16"


def test_descriptions_are_embedded_once_and_joined_to_their_images(
    site: Site, weights: dict[str, str], tmp_path: Path
) -> None:
    plan = site.plan(tmp_path / "out", backbone="biomedclip", weights=weights["biomedclip"])
    embed(plan)
    store = EmbeddingStore(plan.out)
    assert store.spec.texts
    backbone = load_frozen("biomedclip", Path(weights["biomedclip"]))
    expected = backbone.describe_all([describe("R", 4), describe("L", 0)]).numpy()
    assert np.allclose(store.texts(["R", "L"], [4, 0]), expected, atol=1e-5)
    sides, grades = [key[-1] for key in store.keys], [0, 1, 2, 3, 4]
    fused = store.fused(store.keys, sides, grades)
    assert fused.shape == (5, 48)
    assert np.allclose(np.linalg.norm(fused[:, :24], axis=1), 1) and np.allclose(
        np.linalg.norm(fused[:, 24:], axis=1), 1
    )
    missing: Sequence[Any] = [None]
    with pytest.raises(DataError, match="grade is missing"):
        store.texts(["L"], missing)
    path = plan.out / store.spec.digest[:16] / "texts.safetensors"
    save_file(load_file(path), path)  # as earlier versions wrote it: no mark of the sentences, which were these
    assert np.allclose(EmbeddingStore(plan.out).texts(["R"], [4]), expected[:1], atol=1e-5)
    path.write_bytes(b"torn")
    with pytest.raises(DataError, match="embed` again"):
        EmbeddingStore(plan.out).texts(["L"], [0])
    embed(plan)
    assert np.allclose(EmbeddingStore(plan.out).texts(["R"], [4]), expected[:1], atol=1e-5)


@pytest.mark.parametrize("marked", [True, False])
def test_other_sentences_are_embedded_anew_and_images_are_not(
    site: Site, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    plan = site.plan(tmp_path / "out", backbone="biomedclip", weights=weights["biomedclip"])
    embed(plan)
    store = EmbeddingStore(plan.out)
    path = plan.out / store.spec.digest[:16] / "texts.safetensors"
    if not marked:
        save_file(load_file(path), path)
    before = path.read_bytes()
    embed(plan)
    assert path.read_bytes() == before
    old = store.texts(["L", "L"], [0, 4])
    monkeypatch.setattr("inference.bert._GRADES", (*bert._GRADES[:4], "nothing is left of the joint"))
    with pytest.raises(DataError, match="are of other sentences than this version's"):
        EmbeddingStore(plan.out).texts(["L"], [0])
    assert embed(plan).cached == 5
    new = EmbeddingStore(plan.out).texts(["L", "L"], [0, 4])
    assert np.allclose(new[0], old[0], atol=1e-5) and not np.allclose(new[1], old[1], atol=1e-3)


def test_images_alone_have_no_descriptions(site: Site, weights: dict[str, str], tmp_path: Path) -> None:
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])
    embed(plan)
    with pytest.raises(DataError, match="no text tower"):
        EmbeddingStore(plan.out).texts(["L"], [0])


def test_two_runs_do_not_work_in_one_folder(site: Site, weights: dict[str, str], tmp_path: Path) -> None:
    plan = site.plan(tmp_path / "out", weights=weights["rad_dino"])

    def second(*_: int) -> None:
        with pytest.raises(DataError, match="another run"):
            embed(plan)

    embed(plan, second)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"batch": 0}, UsageError, "--batch 0"),
        ({"precision": "fp16"}, UsageError, "fp16 needs a GPU"),
        ({"backbone": "vgg"}, BundleError, "unknown backbone"),
        ({"backbone": "mobilenetv2_035", "weights": None}, DataError, "--weights FOLDER"),
        ({"weights": "nowhere at all"}, DataError, "there are no weights"),
    ],
)
def test_what_makes_no_sense_says_so(
    site: Site, weights: dict[str, str], tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        embed(site.plan(tmp_path / "out", **({"weights": weights["rad_dino"]} | options)))


def test_a_hub_that_does_not_answer_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"microsoft/rad-dino could not be fetched.*--weights a local folder"):
        load_weights("rad_dino", None)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("flipped", None, "null"),
        ("side", "B", "cannot be read"),
        ("path", "../left.dcm", "out of the export"),
        ("path", "", "null"),
    ],
)
def test_a_cohort_that_does_not_say_enough_is_refused(site: Site, column: str, value: Any, match: str) -> None:
    site.rows[0][column] = value
    site.write()
    with pytest.raises(DataError, match=match):
        read_cohort(site.cohort)


def test_a_cohort_lists_its_columns_and_no_knee_twice(site: Site) -> None:
    site.rows.append(site.rows[0])
    site.write()
    with pytest.raises(DataError, match="twice"):
        read_cohort(site.cohort)
    for row in site.rows:
        row.pop("inverted", None)
    site.write()
    with pytest.raises(DataError, match=r"lacks the column\(s\) inverted; it has knee,"):
        read_cohort(site.cohort)


def test_the_command_says_what_was_done(
    site: Site, weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["embed", "--cohort", site.cohort, "--export", site.export, "--out", tmp_path / "out", "--workers", 0]
    arguments += ["--backbone", "rad_dino", "--weights", weights["rad_dino"], "--device", "cpu"]
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr()
    assert "5 embedded in 1 batches, 0 there already, 0 in" in said.out
    assert "5/5 knees" in said.err
    assert main([str(argument) for argument in [*arguments, "--batch", 0]]) == 2


def test_the_quantised_mobilenet_is_a_backbone_too(shared_data: Path, site: Site, tmp_path: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_1.0_224_quant.tflite"
    plan = site.plan(tmp_path / "out", backbone="mobilenetv2_100", weights=str(path))
    assert embed(plan).embedded == 5
    spec = EmbeddingStore(plan.out).spec
    assert (spec.width, spec.synthetic, spec.deployed_use, spec.weights) == (1280, False, True, path.name)
    with pytest.raises(BundleError, match="mobilenetv2_100"):
        load_weights("efficientnet_b0", str(path))
