"""Orthanc's REST API as we read it: the real one, and servers that answer otherwise."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.errors import DataError
from plugin.orthanc_api import NotOrthancError, OrthancApi, is_identifier
from plugin.settings import HttpEndpoint
from plugin.web import WebError
from tests.plugin.fakes import film
from tests.plugin.orthanc_rig import PASSWORD, USER, OrthancServer, orthanc
from tests.plugin.scripted import scripted

NOBODY = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def api(server: OrthancServer) -> OrthancApi:
    return OrthancApi(HttpEndpoint(url=server.url, username=USER, password=PASSWORD))


def test_a_study_and_its_instances(api: OrthancApi, server: OrthancServer, tmp_path: Path) -> None:
    for number in (2, 1):
        path = tmp_path / f"{number}.dcm"
        film(1, number).save_as(path, enforce_file_format=True)
        stored = server.put(path)
    found = api.study(stored["ParentStudy"])
    assert found is not None
    assert (found.identifier, found.study_uid) == (stored["ParentStudy"], film(1).StudyInstanceUID)
    assert api.parent_study(stored["ID"]) == found
    assert api.find_studies(found.study_uid) == (found.identifier,)
    assert list(api.all_studies()) == [found.identifier]
    instances = api.instances(found.identifier)
    assert [instance.sop_uid for instance in instances] == [film(1, n).SOPInstanceUID for n in (1, 2)]
    assert {(i.modality, i.series_uid) for i in instances} == {("DX", film(1).SeriesInstanceUID)}
    target = io.BytesIO()
    done = api.download(instances[0].remote, target, most=10**6)
    assert target.getvalue() == (tmp_path / "1.dcm").read_bytes()
    assert done.size == instances[0].size == len(target.getvalue())
    assert api.version().count(".") == 2
    changes = api.changes(0)
    assert {change.kind for change in changes.entries} >= {"NewInstance", "NewStudy"}
    assert [change.seq for change in changes.entries] == sorted(change.seq for change in changes.entries)
    assert changes.last == api.last_change() >= 5


def test_what_is_not_there(api: OrthancApi) -> None:
    assert api.study(NOBODY) is None
    assert api.parent_study(NOBODY) is None
    assert api.instances(NOBODY) == ()
    assert api.find_studies("1.2.3.4.5") == ()
    with pytest.raises(WebError) as caught:
        api.download(NOBODY, io.BytesIO(), most=1)
    assert caught.value.is_missing


@pytest.mark.parametrize("text", ["", "../system", NOBODY + "/x", NOBODY.upper()[:-1] + "G", "a?b", "\u0661" * 44])
def test_nothing_but_identifiers_enters_an_address(api: OrthancApi, text: str) -> None:
    assert not is_identifier(text)
    with pytest.raises(DataError, match="no identifier"):
        api.study(text)
    with pytest.raises(DataError, match="no Study Instance UID"):
        api.find_studies(text)


def test_a_wrong_password_is_told(server: OrthancServer) -> None:
    api = OrthancApi(HttpEndpoint(url=server.url, username=USER, password="wrong"))
    with pytest.raises(WebError, match="check username and password") as caught:
        api.version()
    assert caught.value.status == 401


@pytest.mark.parametrize("body", ["[]", "{}", '"x"', "null", '{"Changes": [{"Seq": "x"}], "Last": 1, "Done": true}'])
def test_another_server_is_no_surprise_further_on(body: str) -> None:
    with scripted(lambda _request: (200, {}, body.encode())) as other:
        api = OrthancApi(HttpEndpoint(url=other.url))
        for ask in (api.version, api.last_change, lambda: api.study(NOBODY), lambda: api.find_studies("1.2")):
            with pytest.raises(NotOrthancError):
                found = ask()
                assert found == (), "an empty list is what /tools/lookup says of nothing"
                raise NotOrthancError("")
        if body != "[]":
            with pytest.raises(NotOrthancError):
                api.instances(NOBODY)
            with pytest.raises(NotOrthancError):
                list(api.all_studies())


def test_identifiers_in_answers_are_checked_too() -> None:
    study = {"ID": "../../etc", "IsStable": True, "MainDicomTags": {"StudyInstanceUID": "1.2"}}
    with scripted(lambda _request: (200, {}, json.dumps(study).encode())) as other, pytest.raises(NotOrthancError):
        OrthancApi(HttpEndpoint(url=other.url)).study(NOBODY)
