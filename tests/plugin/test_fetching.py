"""The files of a claim: received ones where they lie, Orthanc's for as long as it takes."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from inference.errors import BundleError, ConfigurationError, ResourceError
from plugin.fetching import FETCHED, MOST_SLICES, Fetcher, drop_leftovers, wanted
from plugin.rows import Claim, Input
from plugin.settings import load
from plugin.web import WebError
from tests.inference.mr_bundle import random_backbone, write_bundle
from tests.mr_phantoms import Grid, mr_series
from tests.plugin.fakes import film
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.peers import free_port

GONE = "00000000-00000000-00000000-00000000-00000000"


def kept(remote: str, number: int = 1, *, series: str = "1.2", modality: str = "DX", new: bool = True) -> Input:
    return Input(f"1.2.{number}", series, None, remote, modality, 10, None, new)


def received(path: str) -> Input:
    return Input("1.2.9", "1.2", PurePosixPath(path), None, "", 10, "ab", False)


def claim(*inputs: Input) -> Claim:
    return Claim(7, "1.2", 1, 3, 1, "w", 60.0, 0.0, inputs, (), None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def fetcher(folder: Path, url: str, **more: object) -> Fetcher:
    return Fetcher(
        load(None, {"data_dir": folder, "orthanc": {"url": url, "username": USER, "password": PASSWORD}, **more})
    )


def test_files_are_there_while_they_are_needed(server: OrthancServer, tmp_path: Path) -> None:
    path = tmp_path / "sent.dcm"
    film(1).save_as(path, enforce_file_format=True)
    identifier = server.put(path)["ID"]
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "own.dcm").write_bytes(b"own")
    with fetcher(tmp_path, server.url).files(
        claim(kept(identifier), received("instances/own.dcm"), kept(GONE))
    ) as files:
        fetched, own = files  # what was deleted in the meantime is left out
        assert fetched.path.read_bytes() == path.read_bytes()
        assert fetched.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (fetched.sop_uid, fetched.is_new) == ("1.2.1", True)
        assert (own.path, own.sha256, own.is_new) == (tmp_path / "instances" / "own.dcm", "ab", False)
        assert fetched.path.parent == tmp_path / FETCHED / "7-3"
    assert not fetched.path.parent.exists()
    assert own.path.exists()


def test_no_orthanc_or_one_that_is_away(tmp_path: Path) -> None:
    none = Fetcher(load(None, {"data_dir": tmp_path}))
    with pytest.raises(ConfigurationError, match="no Orthanc is configured"), none.files(claim(kept(GONE))):
        pass
    away = fetcher(tmp_path, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(WebError, match="cannot be reached"), away.files(claim(kept(GONE))):
        pass
    assert list((tmp_path / FETCHED).iterdir()) == []


def test_an_instance_that_is_too_large_is_not_taken(server: OrthancServer, tmp_path: Path) -> None:
    path = tmp_path / "sent.dcm"
    film(2).save_as(path, enforce_file_format=True)
    identifier = server.put(path)["ID"]
    small = fetcher(tmp_path, server.url, listener={"max_instance_bytes": 100})
    with pytest.raises(WebError, match="max_instance_bytes") as caught, small.files(claim(kept(identifier))):
        pass
    assert not caught.value.may_mend  # counts as an attempt, and ends as a dead letter that says why


def test_a_received_file_that_is_lost_is_a_fault_of_our_disk(tmp_path: Path) -> None:
    ours = Fetcher(load(None, {"data_dir": tmp_path}))
    with pytest.raises(ResourceError, match=r"gone\.dcm cannot be opened"), ours.files(claim(received("gone.dcm"))):
        pass
    assert not (tmp_path / FETCHED).exists()


def test_a_folder_that_cannot_be_written(server: OrthancServer, tmp_path: Path) -> None:
    (tmp_path / FETCHED).write_text("in the way")
    with pytest.raises(ResourceError, match="check the disk"), fetcher(tmp_path, server.url).files(claim(kept(GONE))):
        pass


def test_of_a_series_without_radiographs_one_instance_is_enough() -> None:
    slices = [kept("a", number, series="1.5", modality="MR") for number in range(3)]
    others = [kept("b", 10, series="1.6", modality="mr"), kept("c", 11, series="1.7", modality="CT")]
    films = [kept("d", number, series="1.8", modality="DX") for number in (20, 21)]
    unknown = [kept("e", number, series="1.9", modality="") for number in (30, 31)]
    assert wanted([*slices, *others, *films, *unknown]) == [slices[0], *others, *films, *unknown]
    files = [received("a.dcm"), received("b.dcm")]
    assert wanted(files) == files


def test_mr_series_are_whole_where_a_bundle_reads_them() -> None:
    slices = [kept("a", number, series="1.5", modality="MR") for number in range(3)]
    others = [kept("b", number, series="1.6", modality="CT") for number in (10, 11)]
    endless = [kept("c", number, series="1.7", modality="MR") for number in range(MOST_SLICES + 1)]
    assert wanted([*slices, *others, *endless], whole_mr=True) == [*slices, others[0], endless[0]]
    assert len(wanted(endless[1:], whole_mr=True)) == MOST_SLICES


def test_whether_mr_is_fetched_whole_is_said_by_the_bundles(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"format": 1, "task": "jsn_progression", "files": {}}', "utf-8")
    with pytest.raises(BundleError, match="lacks"):
        Fetcher(load(None, {"data_dir": tmp_path, "bundles": [tmp_path]}))
    backbone = random_backbone(tmp_path / "weights")
    folder = write_bundle(tmp_path / "bundle", backbone)
    assert Fetcher(load(None, {"data_dir": tmp_path, "bundles": [folder]})).whole_mr
    assert not Fetcher(load(None, {"data_dir": tmp_path})).whole_mr


def test_slices_are_fetched_whole_only_where_a_bundle_reads_them(server: OrthancServer, tmp_path: Path) -> None:
    inputs = []
    for number, ds in enumerate(mr_series(identity="fetched", grid=Grid(slices=3, rows=8, columns=8))):
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        identifier = server.put(tmp_path / f"{number}.dcm")["ID"]
        inputs.append(Input(ds.SOPInstanceUID, ds.SeriesInstanceUID, None, identifier, "MR", 10, None, True))
    bundle = write_bundle(tmp_path / "bundle", random_backbone(tmp_path / "weights"))
    for bundles, count in (([], 1), ([bundle], 3)):
        ready = fetcher(tmp_path, server.url, bundles=bundles)
        with ready.files(claim(*inputs)) as files:
            assert [file.sop_uid for file in files] == [item.sop_uid for item in inputs[:count]]
            assert ready.gone(claim(*inputs), files) == []
            assert ready.gone(claim(*inputs), files[1:]) == [inputs[0].remote]


def test_of_such_a_series_it_is_one_that_came_last() -> None:
    first, second = (kept("a", number, series="1.5", modality="PR", new=False) for number in (1, 2))
    later, too = (replace(second, sop_uid=f"1.2.{number}", is_new=True, revision=2) for number in (3, 4))
    assert wanted([first, second, later, too]) == [later]
    again = [replace(item, is_new=False) for item in (first, second, later, too)]
    assert wanted(again) == [again[2]]  # scored again: the same inputs, so the same results


def test_leftovers_of_killed_workers_go(tmp_path: Path) -> None:
    (tmp_path / FETCHED / "1-1").mkdir(parents=True)
    (tmp_path / FETCHED / "1-1" / "0.dcm").write_bytes(b"x")
    drop_leftovers(tmp_path)
    drop_leftovers(tmp_path)
    assert not (tmp_path / FETCHED).exists()
