"""Indexes of whole trees: what is in them, what a second run reads again, and what a stopped run leaves behind."""

import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from inference.errors import DataError, ResourceError, UsageError
from tests import malformed, phantoms
from training import index, index_cli, index_worker
from training.cli import main
from training.index import index_export, read_index
from training.index_columns import SCHEMA
from training.index_remote import RemoteTree, shown
from training.index_store import locked
from training.index_tree import entries

ROOT = Path(__file__).resolve().parents[2]


def write_export(folder: Path, count: int = 6) -> Path:
    """Films of some patients, two broken files and some that are no images."""
    for number in range(count):
        ds = malformed.small(PatientID=f"P{number // 2}")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = phantoms.uid("index", number)
        phantoms.write(ds, folder / f"patient{number // 2}" / f"{number}.dcm")
    (folder / "broken.dcm").write_bytes(malformed.MAKERS["truncated_header"]())
    (folder / "text").write_bytes(b"no DICOM")
    for name in ("labels.csv", "notes.json", "DICOMDIR"):
        (folder / name).write_text("x")
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in read_index(path)}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are read from now on."""
    read: list[str] = []
    original = index_worker.row_of

    def row_of(entry: Any, *rest: Any) -> Any:
        read.append(entry.path)
        return original(entry, *rest)

    monkeypatch.setattr(index_worker, "row_of", row_of)
    return read


def test_a_row_a_file_and_a_reason_for_the_broken_ones(export: Path) -> None:
    out = export / "index.parquet"
    assert index_export(export, out) == (8, 2, 8)
    rows = rows_of(out)
    assert list(rows) == sorted(rows)
    assert [path for path, row in rows.items() if row["reason"]] == ["broken.dcm", "text"]
    assert rows["patient1/2.dcm"]["PatientID"] == "P1"
    assert rows["patient1/2.dcm"]["size"] == (export / "patient1/2.dcm").stat().st_size
    assert [part["Rows"] for part in read_index(out, ["Rows"])][1] == 64
    assert not out.with_name("index.parquet.shards").exists()


def test_only_what_changed_is_read_again(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "index.parquet"
    index_export(export, out)
    read = counted(monkeypatch)
    written = out.stat().st_mtime_ns
    assert index_export(export, out) == (8, 2, 0)
    assert (read, out.stat().st_mtime_ns) == ([], written)
    (export / "patient0/0.dcm").touch()
    (export / "patient0/1.dcm").unlink()
    (export / "added").write_bytes(malformed.encoded(malformed.small(PatientID="NEW")))
    assert index_export(export, out) == (8, 2, 2)
    assert sorted(read) == ["added", "patient0/0.dcm"]
    rows = rows_of(out)
    assert list(rows) == sorted(rows)
    assert (rows["added"]["PatientID"], "patient0/1.dcm" in rows) == ("NEW", False)
    assert rows["patient0/0.dcm"]["mtime_ns"] == (export / "patient0/0.dcm").stat().st_mtime_ns


def test_a_file_that_could_not_be_opened_is_tried_again(export: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "index.parquet", export / "patient0/0.dcm"
    content, status = path.read_bytes(), path.stat()
    listed = entries(export, tmp_path)
    path.unlink()
    rows = [index_worker.row_of(entry, None, index_worker.DEFAULT_LIMITS) for entry in listed]
    table = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)
    pq.write_table(table, out)
    assert "ENOENT" in rows_of(out)["patient0/0.dcm"]["reason"]
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert index_export(export, out) == (8, 2, 1)


def test_a_run_that_was_stopped_goes_on(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "index.parquet"
    monkeypatch.setattr(index, "_LOCAL_CHUNK", 2)
    monkeypatch.setattr(index, "_ALONE_SECONDS", 600)  # so that all is read where it is counted
    read = counted(monkeypatch)

    def stop(done: int, _all: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_export(export, out, stop)
    assert (len(read), out.exists()) == (4, False)
    shards = sorted(out.with_name("index.parquet.shards").glob("*.arrow"))
    assert len(shards) == 2
    shards[0].write_bytes(shards[0].read_bytes()[:100])  # as a power failure may leave it
    assert index_export(export, out) == (8, 2, 6)
    assert sorted(set(read[4:])) == sorted(read[:2] + [path for path in rows_of(out) if path not in read[:4]])


def test_the_shards_of_a_stopped_run_are_no_part_of_the_export(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(export)
    out = Path("index.parquet")

    def stop(done: int, _all: int) -> None:
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index, "_LOCAL_CHUNK", 4)
        index_export(Path(), out, stop)
    assert len(list(Path("index.parquet.shards").iterdir())) > 1
    assert index_export(Path(), out) == (8, 2, 4)
    assert not any("shards" in path for path in rows_of(out))


def test_a_kill_in_the_middle_loses_only_the_shards_in_work(tmp_path: Path) -> None:
    export, out = tmp_path / "export", tmp_path / "index.parquet"
    export.mkdir()
    data = malformed.encoded(malformed.small())
    for number in range(3000):
        (export / f"{number:05}.dcm").write_bytes(data)
    program = (
        "import sys, time; from pathlib import Path; from training import index\n"
        "index._LOCAL_CHUNK, index._ALONE_SECONDS = 50, 0\n"
        "index.index_export(Path(sys.argv[1]), Path(sys.argv[2]), lambda d, a: time.sleep(0.1), workers=2)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(export), str(out)], cwd=ROOT)
    shards = out.with_name("index.parquet.shards")
    deadline = time.monotonic() + 60
    while len(list(shards.glob("*.arrow"))) < 5 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    children = _children(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()], "a worker outlived the run"
    kept = len(list(shards.glob("*.arrow")))
    assert kept >= 5
    assert not out.exists()
    found = index_export(export, out, workers=1)
    assert (found.rows, found.unreadable, found.read) == (3000, 0, 3000 - 50 * kept)


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def test_processes_give_the_same_index_and_bring_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = write_export(tmp_path / "export", 12)
    index_export(export, tmp_path / "one.parquet", workers=1)
    monkeypatch.setattr(index, "_LOCAL_CHUNK", 3)
    monkeypatch.setattr(index, "_ALONE_SECONDS", 0)
    index_export(export, tmp_path / "two.parquet", workers=2)
    assert pq.read_table(tmp_path / "one.parquet").equals(pq.read_table(tmp_path / "two.parquet"))
    program = "import sys, training.index, training.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_an_old_index_is_made_again_and_not_misread(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "index.parquet"
    status = (export / "patient0/0.dcm").stat()
    old = {"path": ["patient0/0.dcm"], "size": [status.st_size], "mtime_ns": [status.st_mtime_ns], "PatientID": ["OLD"]}
    pq.write_table(pa.table(old), out)
    with pytest.raises(DataError, match="another version"):
        read_index(out)
    assert index_export(export, out) == (8, 2, 8)
    assert rows_of(out)["patient0/0.dcm"]["PatientID"] == "P0"


@pytest.mark.parametrize("content", [b"precious", None])
def test_a_file_that_is_no_index_is_not_overwritten(export: Path, tmp_path: Path, content: bytes | None) -> None:
    out = tmp_path / "thesis.parquet"
    if content is None:
        pq.write_table(pa.table({"words": ["many"]}), out)
    else:
        out.write_bytes(content)
    before = out.read_bytes()
    with pytest.raises(DataError, match="name another file"):
        index_export(export, out)
    assert out.read_bytes() == before
    assert not out.with_name("thesis.parquet.shards").exists()


def test_two_runs_do_not_write_one_index(export: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "index.parquet.shards"), pytest.raises(DataError, match="wait for it"):
        index_export(export, tmp_path / "index.parquet")


def test_links_that_lead_nowhere_and_odd_names_are_rows(export: Path, tmp_path: Path) -> None:
    (export / "dangling.dcm").symlink_to(export / "gone")
    (export / "loop").symlink_to(export)
    (export / "linked.dcm").symlink_to(export / "patient0/0.dcm")
    os.mkfifo(export / "pipe.dcm")
    odd = os.fsencode(export) + b"/odd\xff.dcm"
    with open(odd, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(malformed.encoded(malformed.small(PatientID="ODD")))
    out = tmp_path / "index.parquet"
    index_export(export, out)
    rows = rows_of(out)
    assert rows["dangling.dcm"]["reason"] == "The link leads nowhere."
    assert rows["linked.dcm"]["PatientID"] == "P0"
    assert rows["odd\\xff.dcm"]["PatientID"] == "ODD"
    assert not any(path.startswith("loop") for path in rows)
    assert index_export(export, out).read == 1  # the link only


def test_a_folder_that_may_not_be_read_is_a_row(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def closed(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith("patient1"):
            raise PermissionError(13, "Permission denied")
        return original(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("os.open", closed)
        index_export(export, tmp_path / "index.parquet")
    rows = rows_of(tmp_path / "index.parquet")
    assert rows["patient1/"]["reason"] == "The folder cannot be read (Permission denied)."
    assert len(rows) == 7


def write_zip(export: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that comes twice
        for file in sorted(export.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(export))
        archive.writestr("patient0/0.dcm", malformed.encoded(malformed.small(PatientID="TWICE")))
        archive.writestr("deflated.dcm", malformed.deflated(b""))
        archive.writestr("odd.dcm", malformed.MAKERS["rows_as_text"]())
        archive.writestr("empty.dcm", b"")
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_zip_is_indexed_as_its_content_is(export: Path, tmp_path: Path, method: int) -> None:
    packed, out = write_zip(export, tmp_path / "export.zip", method), tmp_path / "index.parquet"
    index_export(export, tmp_path / "folder.parquet")
    assert index_export(packed, out).rows == 12
    rows = rows_of(out)
    for path, row in rows_of(tmp_path / "folder.parquet").items():
        assert {**rows[path], "mtime_ns": 0} == {**row, "mtime_ns": 0}
    assert rows["patient0/0.dcm#2"]["PatientID"] == "TWICE"
    assert (rows["deflated.dcm"]["reason"], rows["odd.dcm"]["reason"], rows["odd.dcm"]["Rows"]) == (None, None, None)
    assert "empty" in rows["empty.dcm"]["reason"]
    assert index_export(packed, out).read == 0


def test_zips_within_a_folder_are_looked_into(export: Path, tmp_path: Path) -> None:
    write_zip(export / "patient0", export / "more.zip")
    (export / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
    index_export(export, tmp_path / "index.parquet")
    rows = rows_of(tmp_path / "index.parquet")
    assert rows["more.zip/1.dcm"]["PatientID"] == "P0"
    assert "damaged" in rows["bad.zip"]["reason"]


def test_damaged_zips_and_members_are_rows(export: Path, tmp_path: Path) -> None:
    packed, out = write_zip(export, tmp_path / "export.zip"), tmp_path / "index.parquet"
    data = bytearray(packed.read_bytes())
    where = data.index(b"patient1/2.dcm") + 20
    data[where : where + 200] = b"\xff" * 200
    packed.write_bytes(data)
    found = index_export(packed, out)
    assert (found.rows, found.unreadable) == (12, 4)
    assert "member of the zip is damaged" in rows_of(out)["patient1/2.dcm"]["reason"]
    packed.write_bytes(data[: len(data) // 2])
    assert index_export(packed, out) == (1, 1, 1)
    assert "damaged" in rows_of(out)["export.zip"]["reason"]


def test_encrypted_and_bomb_like_members_are_rows(tmp_path: Path) -> None:
    packed = tmp_path / "bomb.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.dcm", malformed.encoded(malformed.small()))
        archive.writestr("bomb.dcm", malformed.deflate_bomb(80))
        archive.writestr("noise.dcm", b"\0" * 200_000_000)
        archive.writestr("locked.dcm", malformed.encoded(malformed.small()))
        archive.infolist()[0].file_size = 3 * 1024**3
        archive.infolist()[3].flag_bits |= 1
        twin = archive.infolist()[1].__class__("twin.dcm")
        for name in ("header_offset", "compress_size", "file_size", "compress_type", "CRC"):
            setattr(twin, name, getattr(archive.infolist()[1], name))
        archive.filelist.append(twin)
    index_export(packed, tmp_path / "index.parquet")
    reasons = {path: row["reason"] for path, row in rows_of(tmp_path / "index.parquet").items()}
    assert "larger than the limit" in reasons["big.dcm"]
    assert "grows beyond the limit" in reasons["bomb.dcm"]
    assert "not a DICOM file" in reasons["noise.dcm"]
    assert "encrypted" in reasons["locked.dcm"]
    assert "zip bomb" in reasons["twin.dcm"]


def test_what_a_dicomdir_lists(tmp_path: Path) -> None:
    files = FileSet()
    for number in range(3):
        ds = phantoms.mr_knee(f"dicomdir-{number}")[0]
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.SeriesNumber, ds.AccessionNumber = "20240101", "1200", "1", 1, "1"
        files.add(ds)
    media = tmp_path / "media"
    staged = files._stage["t"]
    files.write(media)
    for folder in (staged, files._stage["t"]):
        folder.cleanup()  # pydicom leaves them to the garbage collector, which warns
    (media / "stray").write_bytes(malformed.encoded(malformed.small()))
    out = tmp_path / "index.parquet"
    assert index_export(media / "DICOMDIR", out) == (3, 0, 3)
    lost = next(iter(rows_of(out)))
    (media / lost).unlink()
    assert index_export(media / "DICOMDIR", out)[:2] == (3, 1)
    assert "not there" in rows_of(out)[lost]["reason"]
    data = (media / "DICOMDIR").read_bytes()
    (media / "DICOMDIR").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged"):
        index_export(media / "DICOMDIR", out)


def test_a_dicomdir_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(malformed.encoded(malformed.small()))
    record, ds = Dataset(), malformed.small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ".." is no CS
        record.ReferencedFileID = ["..", "outside"]
    ds.DirectoryRecordSequence = [record]
    (tmp_path / "media").mkdir()
    phantoms.write(ds, tmp_path / "media" / "DICOMDIR")
    index_export(tmp_path / "media" / "DICOMDIR", tmp_path / "index.parquet")
    (row,) = read_index(tmp_path / "index.parquet")
    assert "outside of its own folder" in row["reason"]


@pytest.fixture
def memory(export: Path) -> str:
    store = fsspec.filesystem("memory")
    store.store.clear()
    for file in export.rglob("*"):
        if file.is_file():
            store.pipe_file(f"/bucket/export/{file.relative_to(export)}", file.read_bytes())
    store.pipe_file("/bucket/export2/other.dcm", b"not of this export")
    store.pipe_file("/bucket/export/odd.dcm", malformed.MAKERS["rows_as_text"]())
    return "memory://bucket/export"


def test_a_url_is_indexed_as_a_folder_is(export: Path, memory: str, tmp_path: Path) -> None:
    out = tmp_path / "index.parquet"
    index_export(export, tmp_path / "folder.parquet")
    assert index_export(memory, out) == (9, 2, 9)
    rows = rows_of(out)
    for path, row in rows_of(tmp_path / "folder.parquet").items():
        assert {**rows[path], "mtime_ns": 0} == {**row, "mtime_ns": 0}
    assert index_export(memory, out).read == 0
    fsspec.filesystem("memory").pipe_file("/bucket/export/odd.dcm", malformed.encoded(malformed.small()))
    assert index_export(memory, out).read == 1


class StoreError(Exception):
    """As a store's library has them: of no common class."""


StoreError.__module__ = "botocore.exceptions"


@pytest.mark.parametrize("error", [StoreError("secret"), PermissionError("no"), TimeoutError()])
def test_what_a_store_does_not_give_is_a_row_and_read_again(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    out, kind = tmp_path / "index.parquet", type(fsspec.filesystem("memory"))
    original = kind.cat_file

    def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        if path.endswith("/2.dcm"):
            raise error
        return bytes(original(self, path, start, end, **more))

    with monkeypatch.context() as patch:
        patch.setattr(kind, "cat_file", cat_file)
        assert index_export(memory, out) == (9, 3, 9)
    reason = rows_of(out)["patient1/2.dcm"]["reason"]
    assert "secret" not in reason
    assert type(error).__name__ in reason
    assert index_export(memory, out) == (9, 2, 1)


def test_a_store_that_does_not_answer_is_an_error(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any, **__: Any) -> None:
        raise StoreError("secret")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", find)
    with pytest.raises(ResourceError, match="StoreError"):
        index_export(memory, tmp_path / "index.parquet")


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["index", str(tmp_path / "nowhere")], "is not there"),
        (["index", str(tmp_path / "empty")], "holds no DICOM file"),
        (["index", "memory://nothing/here", "--out", str(tmp_path / "x.parquet")], "holds no file"),
        (["index", "nonsense://user:word@host/x", "--out", str(tmp_path / "x.parquet")], "nonsense://host/x"),
        (["index", "memory://nothing/here"], "--out is needed"),
        (["index", str(tmp_path), "--workers", "0"], "1 or more"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert words in told
        assert "word" not in told.replace(words, "")
    with pytest.raises(UsageError):
        index_export(tmp_path, tmp_path / "x", workers=0)


def test_the_command(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(export), "--workers", "1"]) == 0
    assert "8 files in" in capsys.readouterr().out
    packed = write_zip(export, export.parent / "some.zip")
    assert main(["index", str(packed)]) == 0
    assert (export.parent / "some.zip.index.parquet").exists()


def test_urls_are_shown_without_their_secrets() -> None:
    assert shown("s3://key:secret@bucket/a?token=x") == "s3://bucket/a"
    assert RemoteTree("memory://a/b").url == "memory://a/b"


def test_the_rate_is_shown() -> None:
    assert index_cli._Rate().render(type("Task", (), {"speed": 1234.5})()).plain == "1,234/s"  # type: ignore[arg-type]
