"""What the sidecar needs to know of Orthanc, from Orthanc's configuration. Standard library only: it runs in Orthanc.

What a person can mend is raised as ValueError, a sentence for Orthanc's log.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugin.sidecar_link import Sidecar

# No Python but the sidecar's own may find its packages, and Orthanc's own secrets are none of its business.
UNWANTED: Final = ("PYTHON", "VIRTUAL_ENV", "ORTHANC_")
OURS, SETTING = "GENU_ORTHANC_", "GENU_ORTHANC__"  # the first is for orthanc.json alone, the second is a setting
HTTP_PORT, HTTP_THREADS, STABLE_AGE = 8042, 50, 60  # Orthanc's defaults


@dataclass(frozen=True)
class Known:
    """What only the running Orthanc knows: a token for its REST API, its database, and when Genu first ran in it."""

    token: str
    database: str
    since: float


@dataclass(frozen=True)
class Place:
    """Where things are: the folder of Orthanc's configuration, that of our packages, Orthanc's working directory."""

    configuration: Path
    root: Path
    working: Path


def sidecar(configuration: Mapping[str, Any], place: Place, environment: Mapping[str, str], known: Known) -> Sidecar:
    """How the sidecar of this Orthanc is started. Raises ValueError."""
    section = configuration.get("Genu", {})
    given = section.get("orthanc", {}) if isinstance(section, dict) else {}
    given = given if isinstance(given, dict) else {}
    given = given | _from_environment(environment)
    return Sidecar(
        # -P: what lies in Orthanc's working directory is no package of ours.
        command=(_python(given, place), "-P", "-m", "plugin.cli", "orthanc", "--link"),
        environment=_clean(environment) | {"PYTHONPATH": str(place.root)},
        folder=place.working,
        hello={
            "genu": section,
            "orthanc": _address(configuration, place, given) | ({} if _has_identity(given) else {"token": known.token}),
            "since": known.since,
            "database": known.database,
            "stable_age": configuration.get("StableAge", STABLE_AGE),
        },
    )


def most_requests(configuration: Mapping[str, Any]) -> int:
    """How many of Orthanc's HTTP threads may wait for the sidecar: it needs some to answer them."""
    threads = configuration.get("HttpThreadsCount", HTTP_THREADS)
    return max(1, threads // 2) if isinstance(threads, int) else HTTP_THREADS // 2


def remembered(text: str, now: float) -> tuple[str, float]:
    """(database, since) from what `to_remember` wrote into Orthanc's database; new ones when it says nothing."""
    try:
        found = json.loads(text)
        return str(found["database"]), float(found["since"])
    except (ValueError, TypeError, KeyError):
        return str(uuid.uuid4()), now


def to_remember(database: str, since: float) -> str:
    """See `remembered`."""
    return json.dumps({"database": database, "since": since})


def is_of_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sent this for a page that does not come from this server (CSRF). Names are in lower case."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:  # no browser, or one that is too old to say
        return False
    return origin.partition("://")[2] not in (headers.get("host"), headers.get("x-forwarded-host"))


def _address(configuration: Mapping[str, Any], place: Place, given: Mapping[str, Any]) -> dict[str, Any]:
    """Where this Orthanc's REST API is, for a process on the same machine. Raises ValueError."""
    if configuration.get("HttpServerEnabled", True) is False:
        raise ValueError("Orthanc's REST API is off: set HttpServerEnabled to true, for Genu reads and stores by it")
    port = configuration.get("HttpPort", HTTP_PORT)
    if configuration.get("SslEnabled", False) is not True:
        return {"url": f"http://127.0.0.1:{port}"}
    if configuration.get("SslVerifyPeers", False) is True and not given.get("certificate"):
        raise ValueError(
            "Orthanc wants a certificate of its clients (SslVerifyPeers): set orthanc.certificate and "
            'orthanc.private_key in the section "Genu"'
        )
    certificate = configuration.get("SslCertificate", "certificate.pem")
    trusted = {} if given.get("authorities") else {"authorities": str(place.configuration / str(certificate))}
    return {"url": f"https://127.0.0.1:{port}"} | trusted


def _has_identity(given: Mapping[str, Any]) -> bool:
    return bool(given.get("username") or given.get("token"))


def _python(given: Mapping[str, Any], place: Place) -> str:
    """The interpreter that has Genu's packages. Raises ValueError."""
    if given.get("python"):
        return str(given["python"])
    candidates = [place.root / ".venv" / "bin" / "python"]
    if place.root.name in ("site-packages", "dist-packages"):  # installed: PREFIX/lib/python3.11/site-packages
        candidates.append(place.root.parents[2] / "bin" / "python3")
    for candidate in candidates:
        if candidate.exists():
            return str(candidate)
    raise ValueError(
        f"there is no Python with Genu at {candidates[-1]}: run `make setup` there, or set "
        'orthanc.python in the section "Genu" to one'
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the section `orthanc` that the environment gives, which wins."""
    upper = {name.upper(): value for name, value in environment.items()}
    return {name.removeprefix(SETTING).lower(): value for name, value in upper.items() if name.startswith(SETTING)}


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(UNWANTED) and (not name.startswith(OURS) or name.startswith(SETTING))
    }
