"""Result files: durable before the queue hears of them, each attempt in a folder of its own."""

import os
import stat
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dicom_templates.compose import Composed
from inference.errors import ResourceError
from plugin.rows import Claim
from plugin.writing import drop_earlier_attempts, drop_results, results_folder, write_results
from tests.plugin.fakes import film

CLAIM = Claim(7, "1.2.3", 1, 2, 1, "w", 60.0, 0.0, (), (), None)


def composed() -> Composed:
    return Composed(report=film(1, 1), heatmaps=(film(1, 2), film(1, 3)), cards=(film(1, 4),))


def test_all_is_synced_files_before_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append(kind)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    written = write_results(composed(), tmp_path, CLAIM)
    assert synced == ["file"] * 4 + ["folder"] * 3
    assert [item.kind.value for item in written] == ["heatmap", "heatmap", "card", "report"]
    for item in written:
        content = (tmp_path / item.relative_path).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (item.size, item.sha256)


def test_nothing_to_write_makes_no_folder(tmp_path: Path) -> None:
    assert write_results(Composed(None, ()), tmp_path, CLAIM) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_nothing_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(ResourceError, match="results"):
        write_results(composed(), tmp_path, CLAIM)


def test_attempts_do_not_meet(tmp_path: Path) -> None:
    earlier, later, other = replace(CLAIM, token=1), replace(CLAIM, token=10), replace(CLAIM, job_id=70, token=1)
    for claim in (earlier, CLAIM, later, other):
        write_results(composed(), tmp_path, claim)
    drop_earlier_attempts(tmp_path, CLAIM)
    assert not results_folder(tmp_path, earlier).exists()
    drop_results(tmp_path, later)
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"7-2", "70-1"}
