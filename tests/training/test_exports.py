"""Exports that are no plain folder: what is embedded, graded and prepared of them is what comes of the folder."""

import functools
import hashlib
import http.server
import os
import shutil
import tempfile
import threading
import urllib.parse
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.bias import BiasSpec
from inference.errors import DataError, ResourceError, UnreadableError, UsageError
from inference.limits import Limits
from inference.mr_sequences import MRSequence
from inference.pixels import load_display
from inference.preprocess import PreprocessSpec
from inference.reading import read_instance
from inference.volumes import VolumeSpec
from tests import phantom_pixels, phantoms
from tests.mr_phantoms import enhanced_series, mr_series
from tests.mr_phantoms import write as write_mr
from training import export_names, exports
from training.cli import main
from training.cohorts.series import read_series
from training.embed_decode import prepared
from training.embed_knees import Film, PreparedKnee, films, known_film, read_cohort, read_film
from training.embed_standins import write_standin
from training.embeddings import EmbeddingStore
from training.export_names import Export
from training.exports import Item, held
from training.grade import read_grades
from training.index import index_export, read_index
from training.knee_crops import gather
from training.preprocess_mri import PreprocessPlan, preprocess

SPEC = PreprocessSpec(crop_size=64, size=(64, 64))
FILMS = {"a/left.dcm": ("L", 1), "a/right.dcm": ("R", 2), "b/other.dcm": ("L", 4)}


class Store(http.server.SimpleHTTPRequestHandler):
    """A bucket over HTTP: listings, ranges, ETags, and errors when told so. It counts what it sends."""

    sent: dict[str, int]
    broken: set[str]

    def do_GET(self) -> None:
        path, name = Path(self.translate_path(self.path)), urllib.parse.urlsplit(self.path).path
        if name in self.broken:
            self.send_error(503)
        elif not path.is_file():
            super().do_GET()
        else:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            data = path.read_bytes()[int(first) : int(last) + 1 if last else None]
            self.sent[name] = self.sent.get(name, 0) + len(data)
            self.send_response(206)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{path.stat().st_size}")
            self.end_headers()
            self.wfile.write(data)

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_file():
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three films, a zip of it beside, and a zip of it in a folder."""
    root = tmp_path_factory.mktemp("exports")
    for name, (side, seed) in FILMS.items():
        pixels = phantom_pixels.knee(side, seed=seed)
        phantoms.write(phantoms.wrap_dx(pixels, side, identity=name, bits=12), root / "plain" / name)
    with zipfile.ZipFile(root / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILMS:
            archive.write(root / "plain" / name, name)
    (root / "mixed" / "sub").mkdir(parents=True)
    shutil.copy(root / "packed.zip", root / "mixed" / "sub" / "more.zip")
    shutil.copytree(root / "plain", root / "served")
    return root


@pytest.fixture
def store(folder: Path) -> Iterator[tuple[str, type[Store]]]:
    handler = type("Handler", (Store,), {"sent": {}, "broken": set()})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder / "served"))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def cohort_of(export: Export, tmp_path: Path) -> Path:
    """The cohort that a table of these films makes, by the paths of the index."""
    index_export(export, tmp_path / "index.parquet")
    sides = {row["SOPInstanceUID"]: row["ImageLaterality"] for row in read_index(tmp_path / "index.parquet")}
    rows = [
        {"knee": f"{row['SOPInstanceUID']}/{sides[row['SOPInstanceUID']]}", "SOPInstanceUID": row["SOPInstanceUID"],
         "path": row["path"], "side": sides[row["SOPInstanceUID"]], "bilateral": False, "flipped": False,
         "inverted": False}
        for row in read_index(tmp_path / "index.parquet")
        if row["SOPInstanceUID"]
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "cohort.parquet")
    return tmp_path


def crops_of(export: Export, tmp_path: Path, workers: int = 0) -> dict[str, PreparedKnee]:
    rows = read_cohort(cohort_of(export, tmp_path))
    found = prepared(films(export, rows, SPEC, {}), workers)
    return {knee.row.knee: knee for of_film in found for knee in of_film}


def same(found: dict[str, PreparedKnee], expected: dict[str, PreparedKnee]) -> None:
    assert found.keys() == expected.keys()
    for name, knee in found.items():
        assert knee.crop is not None, knee.reason
        assert expected[name].crop is not None
        assert knee.crop.tobytes() == expected[name].crop.tobytes()
        assert knee.pixels == expected[name].pixels


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedKnee]:
    return crops_of(folder / "plain", tmp_path_factory.mktemp("plain"))


def test_a_zip_a_zip_in_a_folder_and_a_store_give_the_crops_of_the_folder(
    folder: Path, plain: dict[str, PreparedKnee], store: tuple[str, type[Store]], tmp_path: Path
) -> None:
    assert len(plain) == 3
    for number, export in enumerate((folder / "packed.zip", folder / "mixed", store[0])):
        (tmp_path / str(number)).mkdir()
        found = crops_of(export, tmp_path / str(number))
        same(found, plain)
        if number < 2:
            assert {k.source for k in found.values()} == {k.source for k in plain.values()}, "the content is the same"


def test_processes_open_for_themselves_and_a_second_run_fetches_nothing(
    plain: dict[str, PreparedKnee], store: tuple[str, type[Store]], tmp_path: Path
) -> None:
    url, handler = store
    rows = read_cohort(cohort_of(url, tmp_path))
    handler.sent.clear()
    crops = gather(url, rows, SPEC, tmp_path / "cache", workers=1)
    assert not crops.failures
    for row in rows:
        assert np.array_equal(crops.take([row.knee])[0], plain[row.knee].crop)
    assert handler.sent.keys() == {f"/{name}" for name in FILMS}
    fetched = dict(handler.sent)
    handler.sent.clear()
    assert gather(url, rows, SPEC, tmp_path / "cache").digest([row.knee for row in rows])
    assert handler.sent == {}, "the ETags are those of before"
    assert all(count > 100_000 for count in fetched.values())


def test_what_a_store_does_not_give(
    folder: Path, store: tuple[str, type[Store]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = store
    monkeypatch.setattr(exports, "_WAITS", (0.0, 0.0))
    rows = read_cohort(cohort_of(url, tmp_path))
    film = next(films(url, rows, SPEC, {}))
    gone = Film(url, tuple(replace(knee, path="a/gone.dcm") for knee in film.knees), SPEC, film.known)
    (knee,) = read_film(gone)
    assert (knee.source, knee.code, knee.reason) == (
        "", "unreadable", "the file cannot be opened (No such file or directory)."
    )  # fmt: skip
    local = Film(folder / "plain", gone.knees, SPEC, film.known)
    assert read_film(local)[0].reason == knee.reason, "as of a local file"
    assert known_film(gone) is None
    handler.broken.add("/" + str(film.path))
    with pytest.raises(ResourceError, match=r"did not give it.*the same command goes on"):
        read_film(film)
    handler.broken.clear()
    (knee,) = read_film(film)
    assert knee.crop is not None


def test_a_store_that_ignores_ranges_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/whole/left.dcm", (folder / "plain" / "a/left.dcm").read_bytes())
    item = Item("memory://whole", "left.dcm")
    with held(item) as file:
        assert read_instance(file.path, place=file.place).sop_class_uid
    whole = type(memory).cat_file
    monkeypatch.setattr(exports, "_REMOTE_PIECE", 1 << 16)
    monkeypatch.setattr(exports, "_WAITS", ())
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, **_: whole(self, path))
    with pytest.raises(ResourceError, match="whole objects"), held(item) as file:
        load_display(read_instance(file.path, place=file.place))


def test_what_is_spooled_is_bounded_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spill))
    monkeypatch.setattr(exports, "_IN_MEMORY", 1000)
    monkeypatch.setattr(exports, "_PIECE", 5000)
    with held(Item(folder / "packed.zip", "a/left.dcm")) as file:
        assert file.place is not None
        assert list(spill.iterdir()) == [], "an unnamed file"
        packed = load_display(read_instance(file.path, place=file.place)).values
    assert np.array_equal(packed, load_display(read_instance(folder / "plain/a/left.dcm")).values)
    small = Limits(max_file_bytes=1000)
    for export in (folder / "packed.zip", folder / "mixed", "file://" + str(folder / "plain")):
        name = "sub/more.zip/a/left.dcm" if export == folder / "mixed" else "a/left.dcm"
        with (
            pytest.raises(UnreadableError, match="larger than the limit of 1000 bytes"),
            held(Item(export, name), small),
        ):
            pass
        with pytest.raises(UnreadableError, match="larger than the limit of 1000 bytes"):
            Item(export, name).digest(small)
        with pytest.raises(UnreadableError, match="larger than the limit of 1000 bytes"):
            read_instance(Path(name), small, place=Item(export, name))
    assert list(spill.iterdir()) == []


def test_bombs_damage_and_names_that_lead_out(folder: Path, tmp_path: Path) -> None:
    film = (folder / "plain" / "a/left.dcm").read_bytes()
    packed = tmp_path / "odd.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lies.dcm", b"\0" * 9_000_000)
        archive.writestr("../../out.dcm", film)
        archive.writestr("locked.dcm", film)
        archive.writestr("bad.dcm", film, compress_type=zipfile.ZIP_STORED)
        archive.writestr("packed.dcm", film, compress_type=zipfile.ZIP_LZMA)
        places = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray(packed.read_bytes())
    size = (9_000_000).to_bytes(4, "little")
    assert data.count(size) == 2
    data = data.replace(size, (4096).to_bytes(4, "little"))  # more comes out than the zip says
    data[places["locked.dcm"] + 6] |= 1
    data[data.rindex(b"locked.dcm") - 38] |= 1
    data[places["bad.dcm"] + 1000] ^= 0xFF
    packed.write_bytes(data)
    index_export(packed, tmp_path / "index.parquet")
    said = {row["path"]: row["reason"] for row in read_index(tmp_path / "index.parquet")}
    for name, why in {"lies.dcm": "damaged", "locked.dcm": "encrypted", "bad.dcm": "damaged"}.items():
        with pytest.raises(UnreadableError, match=why) as caught:
            Item(packed, name).digest()
        if name == "locked.dcm":
            assert caught.value.refusal.reason == said[name], "as the index says it"
    # A name within a zip is looked up, never opened; a path of a folder or of a store is not left.
    for name in ("../../out.dcm", "packed.dcm"):
        with held(Item(packed, name)) as file:
            assert read_instance(file.path, place=file.place).place is file.place
            assert file.content == hashlib.sha256(film).hexdigest()
    nested = tmp_path / "nested"
    nested.mkdir()
    shutil.copy(packed, nested / "odd.zip")
    assert Item(nested, "odd.zip/../../out.dcm").digest() == hashlib.sha256(film).hexdigest()
    (tmp_path / "secret.dcm").write_bytes(film)
    for export in (nested, f"file://{nested}"):
        for name in ("../secret.dcm", str(tmp_path / "secret.dcm"), "../odd.zip/packed.dcm"):
            with pytest.raises(UnreadableError, match="leads out of the export"):
                Item(export, name).digest()
    (nested / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(UnreadableError, match="The zip is damaged"):
        Item(nested, "bad.zip/a.dcm").digest()


def test_a_dicomdir_and_names_that_are_no_text(folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    name = os.fsdecode(b"f\xfc.dcm")
    try:
        shutil.copy(folder / "plain/a/left.dcm", odd / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    index_export(odd, tmp_path / "index.parquet")
    (row,) = read_index(tmp_path / "index.parquet")
    assert row["path"] == "f\\xfc.dcm"
    assert Item(odd, row["path"]).digest() == Item(folder / "plain", "a/left.dcm").digest()
    (folder / "plain" / "DICOMDIR").touch()
    assert Item(folder / "plain" / "DICOMDIR", "a/left.dcm").local == folder / "plain" / "a/left.dcm"
    exports.check(folder / "plain" / "DICOMDIR")
    (folder / "plain" / "DICOMDIR").unlink()


def test_mr_series_of_zips_and_stores_are_the_slices_of_the_folder(
    tmp_path: Path, store: tuple[str, type[Store]], folder: Path, request: pytest.FixtureRequest
) -> None:
    plain = tmp_path / "plain"
    write_mr(mr_series("L", identity="left", shuffle=1), plain / "left")
    write_mr(enhanced_series("R", identity="right"), plain / "right")
    packed, mixed = tmp_path / "packed.zip", tmp_path / "mixed"
    mixed.mkdir()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(plain.rglob("*.dcm")):
            archive.write(path, path.relative_to(plain))
    shutil.copy(packed, mixed / "all.zip")
    shutil.copytree(plain, folder / "served" / "mr")
    request.addfinalizer(functools.partial(shutil.rmtree, folder / "served" / "mr"))
    url = f"{store[0]}/mr"
    spec = replace(VolumeSpec.default(MRSequence.COR_IW_TSE), size=32, bias=BiasSpec(iterations=(1,)))
    made = {}
    for name, export in {"plain": plain, "packed": packed, "mixed": mixed, "url": url}.items():
        index = tmp_path / f"{name}.parquet"
        index_export(export, index)
        cohort = tmp_path / f"cohort-{name}"
        cohort.mkdir()
        series = read_series(index).select("SeriesInstanceUID", "path", sequence=pl.lit("COR_IW_TSE"))
        one_right = pl.when(pl.col("path").str.ends_with("right")).then(pl.lit("R")).otherwise(pl.lit("L"))
        series.with_columns(side=one_right).write_parquet(cohort / "cohort.parquet")
        plan = PreprocessPlan(export, tmp_path / f"out-{name}", spec, cohort, workers=0, index=index)
        assert preprocess(plan).prepared == 2, name
        assert preprocess(plan).cached == 2, name
        of_all = preprocess(replace(plan, out=tmp_path / f"all-{name}", cohort=None))
        assert (of_all.prepared, of_all.failed) == (2, 0), name
        made[name] = {path.name: path.read_bytes() for path in plan.out.rglob("*.safetensors")}
        assert {path.name for path in (tmp_path / f"all-{name}").rglob("*.safetensors")} == made[name].keys()
    assert len(made["plain"]) == 2
    assert made["plain"] == made["packed"] == made["mixed"] == made["url"]
    with pytest.raises(DataError, match=r"the index .*packed\.zip\.index\.parquet is missing"):
        preprocess(PreprocessPlan(packed, tmp_path / "none", spec, workers=0))
    with pytest.raises(UsageError, match="--index is needed for a URL"):
        preprocess(PreprocessPlan(url, tmp_path / "none", spec, workers=0))


def test_the_commands_from_a_zip_to_vectors_and_grades(folder: Path, tmp_path: Path) -> None:
    weights = str(write_standin("rad_dino", tmp_path / "weights"))
    (tmp_path / "work").mkdir()
    shutil.copy(folder / "packed.zip", tmp_path / "work" / "packed.zip")
    shutil.copytree(folder / "plain", tmp_path / "work" / "plain")
    stores, grades = [], []
    for export in (tmp_path / "work" / "plain", tmp_path / "work" / "packed.zip"):
        out, given = tmp_path / export.name, ["--export", str(export)]
        assert main(["index", str(export)]) == 0
        rows = read_index(export_names.default_index(export))
        table = tmp_path / "labels.csv"
        lines = [f"{row['SOPInstanceUID']},{row['ImageLaterality']},3" for row in rows]
        table.write_text("\n".join(["SOPInstanceUID,side,pain", *lines]) + "\n")
        assert main(["cohort", "table", *given, "--tables", str(table), "--out", str(out / "cohort")]) == 0
        made = ["--cohort", str(out / "cohort"), *given, "--workers", "0", "--device", "cpu"]
        command = ["embed", *made, "--backbone", "rad_dino", "--weights", weights, "--out", str(out / "vectors")]
        assert main(command) == 0
        assert main(["grade", *made, "--out", str(out / "grades.parquet")]) == 0
        stores.append(EmbeddingStore(out / "vectors"))
        grades.append(read_grades(out / "grades.parquet"))
    assert len(stores[0].keys) == 3
    assert stores[0].keys == stores[1].keys
    matrices = [store.matrix(store.keys) for store in stores]
    assert matrices[0].tobytes() == matrices[1].tobytes()
    assert grades[0].knees == grades[1].knees
    assert grades[0].probabilities.tobytes() == grades[1].probabilities.tobytes()


def test_wrong_use(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    table = tmp_path / "labels.csv"
    table.write_text("SOPInstanceUID,side,pain\n1.2,L,3\n")
    cohort = cohort_of(folder / "plain", tmp_path)
    for words, told in (
        (["grade", "--cohort", str(cohort), "--export", str(tmp_path / "x.zip"), "--out", str(tmp_path / "g")],
         "is no folder, zip, DICOMDIR or URL"),
        (["grade", "--cohort", str(cohort), "--export", "nothing://user:word@x", "--out", str(tmp_path / "g")],
         "nothing://x: no store of this kind"),
        (["cohort", "table", "--export", "memory://x", "--tables", str(table), "--out", str(tmp_path / "c")],
         "--index is needed"),
        (["fit", "--export", str(folder / "packed.zip"), "--run", str(tmp_path / "r")], "is not a folder: here a zip"),
    ):  # fmt: skip
        assert main(words) != 0
        said = capsys.readouterr().err
        assert told in " ".join(said.split()), said
        assert "word" not in said
