"""One typed model of every setting, and how it is read: defaults < file < GENU_* environment < command line.

The file is TOML, or JSON with a "Genu" section (so that orthanc.json can carry it). Nested settings are written
`GENU_LISTENER__PORT=11113` in the environment; lists and tables are JSON there. The reference in docs/settings.md is
made from this model: `python -m plugin.settings_reference --write`.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from inference.errors import ConfigurationError
from plugin.endpoints import (
    AETitle,
    AnyDestination,
    CStoreDestination,
    Destination,
    DicomWeb,
    FolderDestination,
    HttpEndpoint,
    Orthanc,
    OrthancDestination,
    Port,
    Seconds,
    Section,
    StowDestination,
    Tls,
)

__all__ = [
    "AnyDestination",
    "CStoreDestination",
    "Completeness",
    "Delivery",
    "Destination",
    "DicomWeb",
    "FolderDestination",
    "HttpEndpoint",
    "Listener",
    "Orthanc",
    "OrthancDestination",
    "Peer",
    "QueueSettings",
    "Settings",
    "Station",
    "StowDestination",
    "Tls",
    "Workers",
    "dumps",
    "from_orthanc",
    "load",
    "loads",
]

ENV_PREFIX = "GENU_"
NESTED = "__"
# Read by make, by the tests and by Orthanc (orthanc.json).
NOT_SETTINGS = frozenset({"GENU_PYTHON", "GENU_SOAK_ROUNDS", "GENU_SOAK_SEED"}) | frozenset(
    {"GENU_ORTHANC_PASSWORD", "GENU_ORTHANC_PLUGINS"}
)


class Peer(Section):
    """A node that may send to Genu."""

    ae_title: Literal["*"] | AETitle = Field(description='calling AE title; "*" is any')
    hosts: tuple[str, ...] = Field(default=(), description="addresses it may call from; empty means any")
    quiet_seconds: Seconds | None = Field(default=None, description="overrides completeness.quiet_seconds for it")
    max_seconds: Seconds | None = Field(default=None, description="overrides completeness.max_seconds for it")
    accept_secondary_capture: bool = Field(
        default=False, description="score Secondary Capture images it sends (PS3.3 A.8)"
    )


class Listener(Section):
    """The Storage and Verification SCP."""

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is every IPv4 interface")
    port: Port = Field(default=11112, description="TCP port; 0 takes a free one")
    ae_title: AETitle = Field(default="GENU", description="our AE title")
    require_called_ae: bool = Field(default=False, description="refuse associations that call us by another AE title")
    peers: tuple[Peer, ...] = Field(default=(), description="who may send; empty means anybody who reaches the port")
    max_instance_bytes: PositiveInt = Field(default=2 * 1024**3, description="larger instances are refused with A700")
    min_free_bytes: NonNegativeInt = Field(default=512 * 1024**2, description="below this free disk space: A700")
    max_associations: PositiveInt = Field(default=16, description="associations at the same time")
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1024**2)] = Field(default=131072, description="PDU length we offer")
    idle_seconds: Seconds = Field(default=30.0, description="a peer that says nothing for so long is cut off")
    tls: Tls | None = Field(default=None, description="TLS; without it associations are plain")


class Completeness(Section):
    """When a study counts as whole."""

    quiet_seconds: Seconds = Field(default=5.0, description="nothing new for so long: the study is whole")
    max_seconds: Seconds = Field(default=300.0, description="whole at the latest so long after its first new instance")


class Workers(Section):
    """The scoring processes."""

    count: NonNegativeInt = Field(default=1, description="worker processes that `genu listen` supervises")
    threads: PositiveInt = Field(
        default=1, description="torch threads of each; more pay only where nothing else needs the CPUs"
    )
    poll_seconds: Seconds = Field(default=0.1, description="how often an idle worker looks for work")
    job_seconds: Seconds = Field(default=900.0, description="a worker that needs longer for one study kills itself")


class QueueSettings(Section):
    """Leases and retries of scoring."""

    lease_seconds: Seconds = Field(default=60.0, description="a worker that is silent for so long has lost its study")
    heartbeat_seconds: Seconds = Field(default=15.0, description="how often a worker says that it is alive")
    max_attempts: PositiveInt = Field(default=5, description="claims of one study before it becomes a dead letter")
    backoff_seconds: Seconds = Field(default=5.0, description="wait after the first failure; doubles with each further")
    backoff_max_seconds: Seconds = Field(default=300.0, description="the longest wait between two attempts")
    busy_seconds: Seconds = Field(default=30.0, description="how long to wait for another process's transaction")

    @model_validator(mode="after")
    def _beats(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                "heartbeat_seconds must be at most half of lease_seconds, or one late beat loses the study"
            )
        return self


class Delivery(Section):
    """Leases and retries of sending results."""

    lease_seconds: Seconds = Field(default=300.0, description="a deliverer silent for so long has lost its batch")
    batch: PositiveInt = Field(default=50, description="objects in one association at most")
    max_refusals: PositiveInt = Field(default=5, description="refusals of one object before it becomes a dead letter")
    backoff_seconds: Seconds = Field(default=2.0, description="wait after the first failure; doubles with each further")
    backoff_max_seconds: Seconds = Field(
        default=300.0, description="the longest wait; a dead destination is asked so often"
    )
    poll_seconds: Seconds = Field(default=0.1, description="how often an idle deliverer looks for work")


class Station(Section):
    """This installation, as reports name it."""

    device_uid: Annotated[str, Field(pattern=r"^([0-9.]{1,64})?$")] = Field(
        default="",
        description="Device UID of the observer; empty means derived from the software version and device_serial",
    )
    device_serial: Annotated[str, Field(max_length=64)] = Field(
        default="1", description="Device Serial Number in reports"
    )


class Settings(BaseSettings):
    """All settings. Build it with `load`; calling the class directly reads neither file nor environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=NESTED, frozen=True, extra="forbid", validate_default=True
    )

    data_dir: Path = Field(
        default=Path("genu-data"), description="received instances, queue and results; on one file system"
    )
    bundles: tuple[Path, ...] = Field(
        default=(),
        description="model bundles to score with: at most one that grades (without it the one that ships), one for "
        "pain, and for knee MRI one for each outcome and sequence",
    )
    allow_undeployed_bundles: bool = Field(
        default=False,
        description="load bundles although the terms of their weights exclude use in a running service; for research "
        "that those terms cover",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    listener: Listener = Listener()
    completeness: Completeness = Completeness()
    workers: Workers = Workers()
    queue: QueueSettings = QueueSettings()
    delivery: Delivery = Delivery()
    destinations: tuple[Destination, ...] = Field(
        default=(), description="where results go; empty means the folder outgoing in data_dir"
    )
    station: Station = Station()
    orthanc: Orthanc | None = Field(
        default=None, description="the Orthanc to serve; set by its plugin, or by hand for `genu orthanc`"
    )
    dicomweb: DicomWeb | None = Field(default=None, description="where `genu score --study` finds studies")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `load` merges file and environment itself, so that each wins in its turn."""
        return (init_settings,)

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [destination.name for destination in self.delivery_targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two destinations are called {twice[0]!r}: give each its own name")
        return self

    @property
    def queue_path(self) -> Path:
        """The SQLite file of the queue."""
        return self.data_dir / "queue.sqlite"

    @property
    def delivery_targets(self) -> tuple[AnyDestination, ...]:
        """The Orthanc that is served and the configured destinations; without any the folder <data_dir>/outgoing."""
        own: tuple[AnyDestination, ...] = ()
        if self.orthanc is not None and self.orthanc.deliver:
            shared = {name: getattr(self.orthanc, name) for name in HttpEndpoint.model_fields}
            own = (OrthancDestination(**shared, only_known_studies=True),)
        outgoing = FolderDestination(name="outgoing", path=self.data_dir / "outgoing")
        return (*own, *self.destinations) or (outgoing,)


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from defaults, the file at `path` (.toml or .json), the environment and `overrides`, the last wins.

    `overrides` is nested like the model, for example {"listener": {"port": 0}}. Raises ConfigurationError, which names
    the setting, its value and what to do.
    """
    return _layered(_file_values(path) if path else {}, _environment(), overrides or {})


def from_orthanc(section: Mapping[str, Any], known: Mapping[str, Any]) -> Settings:
    """Settings from what the plugin knows of Orthanc, the "Genu" section of its configuration, and the environment.

    The last wins. Raises ConfigurationError.
    """
    return _layered({"orthanc": known}, section, _environment())


def _layered(*layers: Mapping[str, Any]) -> Settings:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer)
    return _validated(merged)


def dumps(settings: Settings) -> str:
    """All settings as one line of JSON, for a child process: `loads` gives the same settings back."""
    return settings.model_dump_json()


def loads(text: str) -> Settings:
    """Settings from `dumps`, with no look at files or the environment. Raises ConfigurationError."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"the settings handed over are not JSON (line {error.lineno}): use dumps()") from error
    return _validated(values)


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(detail) for detail in error.errors())) from error


def _sentence(detail: Mapping[str, Any]) -> str:
    """One pydantic error as: setting, value, what to do."""
    name = ".".join(str(part) for part in detail["loc"]) or "settings"
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such setting; docs/settings.md lists them all"
    if detail["type"] == "missing":
        return f"{name}: missing; set it"
    message = str(detail["msg"]).removeprefix("Value error, ")
    value = detail["input"]
    is_shown = isinstance(value, str | int | float | bool) and not _may_be_secret(detail)
    shown = f" is {value!r}" if is_shown else ""
    return f"{name}{shown}: {message}"


def _may_be_secret(detail: Mapping[str, Any]) -> bool:
    """Whether what was given for a setting must not be quoted: a password, or an address that may have one in it."""
    return not {"password", "token"}.isdisjoint(detail["loc"]) or "@" in str(detail["input"])


def _file_values(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"cannot read the settings file {path}: {error.strerror}; check --config") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(f"the settings file {path} is not valid {kind}: {error}; mend it there") from error
    if path.suffix == ".json":
        values = values.get("Genu", {}) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise ConfigurationError(f"the settings file {path} holds no table of settings: write 'name = value' lines")
    return values


def _environment() -> Mapping[str, Any]:
    """GENU_* variables as nested values; a name that leads nowhere is an error, not silence."""
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(ENV_PREFIX) or name in NOT_SETTINGS:
            continue
        section = name.removeprefix(ENV_PREFIX).split(NESTED)[0].lower()
        if section not in Settings.model_fields:
            raise ConfigurationError(f"{variable}: there is no setting {section!r}; docs/settings.md lists them all")
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as error:  # pydantic-settings' SettingsError: a table or list that is not JSON
        raise ConfigurationError(f"{error}: lists and tables in the environment are written as JSON") from error


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if both and isinstance(old, Mapping) else value
    return result
