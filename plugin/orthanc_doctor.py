"""Is this Orthanc fit for Genu? `genu doctor --orthanc URL` asks it by REST; nothing is written to it.

Each answer says what to do when it is no. A warning is what Genu can live without, or what only looks wrong.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from plugin.doctor import Check, Verdict
from plugin.settings import HttpEndpoint
from plugin.web import SUCCESS, WebError, WebServer

OLDEST = (1, 10)
FULL = 0.95  # of MaximumStorageSize
SHOWN = 300  # characters of what a server says
PAGE = "docs/orthanc.md"

Body = Mapping[str, Any]


def examine_orthanc(endpoint: HttpEndpoint) -> Iterator[Check]:
    """All questions in turn; the first alone when it does not let us ask the others. Raises ConfigurationError."""
    server = WebServer(endpoint)
    try:
        system, check = check_reached(server, endpoint)
        yield check
        if system is None:
            return
        yield check_version(system)
        yield check_access(endpoint, system)
        yield check_results(server, system)
        plugins = _listed(server, "/plugins")
        yield check_dicomweb_plugin(plugins)
        yield check_python_plugin(server, plugins, system)
        yield from check_genu(server)
    finally:
        server.close()


def check_reached(server: WebServer, endpoint: HttpEndpoint) -> tuple[Body | None, Check]:
    """Somebody answers there, knows us, and is an Orthanc: what it says of itself, or None."""
    about = "orthanc"
    try:
        answer = server.exchange("GET", "/system", headers={"Accept": "application/json"})
    except WebError as error:
        remedy = (
            "start Orthanc (Debian: systemctl status orthanc, its log is in /var/log/orthanc); compare the address "
            "with HttpPort and SslEnabled in its configuration"
        )
        return None, Check(about, Verdict.FAILED, str(error), remedy)
    if answer.status in (401, 403):
        return None, Check(about, Verdict.FAILED, *_stranger(server.url, endpoint, answer.status))
    system = _object(answer.content) if answer.status in SUCCESS else {}
    if not isinstance(system.get("Version"), str) or "ApiVersion" not in system:
        seen = f"something answers at {server.url} (status {answer.status}), but it is not Orthanc's REST API"
        remedy = "another program has that port, or the path is wrong: give the address where /system answers"
        return None, Check(about, Verdict.FAILED, seen, remedy)
    name = f", called {_shown(system['Name'])}" if system.get("Name") else ""
    return system, Check(about, Verdict.FINE, f"{server.url} is Orthanc {_shown(system['Version'])}{name}")


def _stranger(url: str, endpoint: HttpEndpoint, status: int) -> tuple[str, str]:
    """What was seen and what to do when Orthanc does not let us in."""
    elsewhere = "" if _is_loopback(url) else "; from another machine it also needs RemoteAccessAllowed, true"
    if endpoint.token.get_secret_value():
        return f"{url} does not accept our token (status {status})", "set orthanc.token anew"
    if not endpoint.username:
        return (
            f"{url} wants a user name and a password (status {status})",
            "set GENU_ORTHANC__USERNAME and GENU_ORTHANC__PASSWORD, or username and password in the section orthanc, "
            f"to one of its RegisteredUsers{elsewhere}",
        )
    return (
        f"{url} does not accept the user {endpoint.username!r} with this password (status {status})",
        f"compare them with RegisteredUsers (Debian: /etc/orthanc/credentials.json){elsewhere}",
    )


def check_version(system: Body) -> Check:
    """1.10 or newer."""
    found = str(system["Version"])
    if found == "mainline":  # built from its repository: newer than any release
        return Check("orthanc version", Verdict.FINE, "mainline")
    numbers = tuple(int(part) for part in found.split(".") if part.isascii() and part.isdigit())
    if numbers[:2] < OLDEST:
        return Check(
            "orthanc version",
            Verdict.FAILED,
            f"{_shown(found)}; Genu is tested with 1.10 and 1.12",
            "upgrade Orthanc to 1.10 or newer (Debian 12 has 1.10, Debian 13 has 1.12)",
        )
    return Check("orthanc version", Verdict.FINE, f"{_shown(found)}; Genu needs 1.10 or newer")


def check_access(endpoint: HttpEndpoint, system: Body) -> Check:
    """Who is let in: with or without a password, encrypted or not. Orthanc always listens on every interface."""
    about = "orthanc access"
    local = _is_loopback(endpoint.url)
    encrypted = endpoint.url.startswith("https:")
    nobody = endpoint.model_copy(update={"username": "", "password": SecretStr(""), "token": SecretStr("")})
    asker = WebServer(nobody)
    try:
        is_open = asker.exchange("GET", "/system").status in SUCCESS
    except WebError as error:
        return Check(about, Verdict.WARNING, str(error), "run this again")
    finally:
        asker.close()
    if system.get("IsHttpServerSecure") is False or (is_open and not local):
        return Check(
            about,
            Verdict.WARNING,
            "other machines are let in without a password, or with Orthanc's published default one",
            'set "AuthenticationEnabled": true and "RegisteredUsers", or "RemoteAccessAllowed": false',
        )
    if not local and not encrypted:
        seen = "password and images go over the network unencrypted"
        return Check(
            about, Verdict.WARNING, seen, "set SslEnabled and SslCertificate in Orthanc, or put a proxy before it"
        )
    if is_open:
        seen = "no password is asked for; other machines are refused by Orthanc, programs on this one are not"
        return Check(about, Verdict.FINE, seen)
    return Check(about, Verdict.FINE, "a password is asked for")


def check_results(server: WebServer, system: Body) -> Check:
    """Whether report and heatmaps can be stored, as far as can be told without storing anything."""
    about = "orthanc results"
    if system.get("ReadOnly") is True:
        seen = "it is read-only: results cannot be put there"
        return Check(about, Verdict.FAILED, seen, 'set "ReadOnly": false, or `orthanc.deliver` to false')
    size, limit = _listed(server, "/statistics").get("TotalDiskSizeMB"), system.get("MaximumStorageSize")
    if isinstance(size, int) and isinstance(limit, int) and limit and size > FULL * limit:
        is_rejecting = system.get("MaximumStorageMode") == "Reject"
        return Check(
            about,
            Verdict.FAILED if is_rejecting else Verdict.WARNING,
            f"{size} of {limit} MB are used (MaximumStorageSize); then "
            + ("results are refused" if is_rejecting else "the oldest patients are deleted for new images"),
            "raise MaximumStorageSize, or make room",
        )
    return Check(about, Verdict.FINE, "nothing speaks against storing them (nothing was stored to try)")


def check_dicomweb_plugin(plugins: Body) -> Check:
    """Viewers read by it; Genu does not need it."""
    about = "orthanc dicom-web"
    if "dicom-web" in plugins:
        return Check(about, Verdict.FINE, "the DICOMweb plugin is loaded")
    return Check(
        about,
        Verdict.WARNING,
        "the DICOMweb plugin is not loaded: Genu works, but OHIF and other web viewers cannot read from it",
        f"Debian: apt-get install orthanc-dicomweb, then restart Orthanc; elsewhere see {PAGE}",
    )


def check_python_plugin(server: WebServer, plugins: Body, system: Body) -> Check:
    """Runs Genu inside Orthanc; without it `genu orthanc` serves Orthanc from outside."""
    about = "orthanc python"
    if "python" in plugins:
        told = _listed(server, "/plugins/python").get("Version")
        return Check(about, Verdict.FINE, f"the Python plugin {_shown(told)} is loaded")
    is_off = system.get("PluginsEnabled") is False
    seen = "plugins are switched off" if is_off else "the Python plugin is not loaded, or has no PythonScript"
    remedy = (
        f"Debian: apt-get install orthanc-python, and set PythonScript to Genu's ({PAGE}); or serve it from outside "
        "with `genu orthanc`"
    )
    return Check(about, Verdict.WARNING, seen, remedy)


def check_genu(server: WebServer) -> Iterator[Check]:
    """Genu's plugin in this Orthanc: whether it answers, and what it says of itself."""
    about = "orthanc genu"
    try:
        answer = server.exchange("GET", "/genu/status")
    except WebError as error:
        yield Check(about, Verdict.FAILED, str(error), "look into Orthanc's log")
        return
    status = _object(answer.content)
    if answer.status == 404:
        seen = "Genu's plugin is not in this Orthanc (/genu/status is not there)"
        remedy = f"set PythonScript to Genu's ({PAGE}); where `genu orthanc` serves it from outside all is well"
        yield Check(about, Verdict.WARNING, seen, remedy)
        return
    if answer.status not in SUCCESS or not status:
        said = _shown(status.get("error"))
        seen = f"Genu's plugin is there, its service does not answer (status {answer.status}): {said}"
        remedy = f"mend what it says; Orthanc's log has more, in lines that begin with Genu ({PAGE})"
        yield Check(about, Verdict.FAILED, seen, remedy)
        return
    yield check_genu_version(status)
    yield check_service(status)
    yield check_following(status)
    yield check_dead(status)
    yield check_stable_age(status)


def check_genu_version(status: Body) -> Check:
    """The same version there and here, with a bundle that was trained."""
    about = "orthanc genu"
    there, here = _shown(status.get("version")), version("genu")
    bundles = _list(status.get("bundles"))
    names = [f"{_shown(bundle.get('name'))} {_shown(bundle.get('version'))}" for bundle in bundles]
    seen = f"version {there}, bundle {', '.join(names) or 'unknown'}"
    if there != here:
        return Check(about, Verdict.WARNING, f"{seen}; this is {here}", "upgrade the older, restart Orthanc")
    if any(bundle.get("synthetic") for bundle in bundles):
        remedy = 'its grades mean nothing: set `bundles` in the section "Genu"'
        return Check(about, Verdict.WARNING, f"{seen}, a synthetic stand-in", remedy)
    return Check(about, Verdict.FINE, seen)


def check_service(status: Body) -> Check:
    """The processes that score and deliver."""
    about = "orthanc service"
    family = _list(status.get("children"))
    down = [_shown(child.get("name")) for child in family if child.get("running") is not True]
    if down or not family:
        seen = f"not running: {', '.join(down) or 'any worker'}"
        return Check(about, Verdict.FAILED, seen, "Orthanc's log says why; each is started again by itself")
    broken = [_shown(bundle["error"]) for bundle in _list(status.get("bundles")) if "error" in bundle]
    if broken:
        return Check(about, Verdict.FAILED, broken[0], "put a whole bundle there, or mend `bundles`")
    return Check(about, Verdict.FINE, f"running: {', '.join(_shown(child.get('name')) for child in family)}")


def check_following(status: Body) -> Check:
    """How far Orthanc's changes are known."""
    about = "orthanc changes"
    following = status.get("orthanc")
    if not isinstance(following, dict):
        return Check(about, Verdict.FAILED, "it does not say how far it is", "upgrade Genu, restart Orthanc")
    if following.get("error"):
        remedy = "see whether Orthanc's own REST API is slow or refuses Genu; it is asked again by itself"
        return Check(about, Verdict.FAILED, _shown(following["error"]), remedy)
    seen = f"in the queue up to change {_shown(following.get('cursor'))} of {_shown(following.get('last_change'))}"
    waiting = _shown(following.get("waiting_instances"))
    return Check(about, Verdict.FINE, f"{seen}; images whose study is not stable yet: {waiting}")


def check_dead(status: Body) -> Check:
    """Nothing was given up."""
    studies = len(_list(status.get("dead")))
    objects = sum(row["dead"] for row in _list(status.get("destinations")) if isinstance(row.get("dead"), int))
    if studies or objects:
        seen = f"given up: {studies} studies, {objects} results that a destination refused"
        remedy = f"`genu status --data-dir {_shown(status.get('data_dir'))}` says why; mend it, then `genu retry`"
        return Check("orthanc dead letters", Verdict.WARNING, seen, remedy)
    return Check("orthanc dead letters", Verdict.FINE, "none")


def check_stable_age(status: Body) -> Check:
    """How long a study has to be quiet; Orthanc itself does not tell."""
    following = status.get("orthanc")
    age = following.get("stable_age") if isinstance(following, dict) else None
    seen = f"{age} s" if isinstance(age, int) else "not told (60 s when Orthanc's configuration says nothing)"
    return Check("orthanc StableAge", Verdict.FINE, f"{seen}: so long after its last image a study is scored")


def _listed(server: WebServer, path: str) -> Body:
    """A JSON object, or a list of names as one; empty when there is none."""
    try:
        answer = server.exchange("GET", path)
    except WebError:
        return {}
    return _object(answer.content) if answer.status in SUCCESS else {}


def _object(content: bytes) -> Body:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, list):
        return {name: True for name in found if isinstance(name, str)}
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    """What a server says, for a line on a terminal."""
    text = "unknown" if value is None else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)[:SHOWN]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
