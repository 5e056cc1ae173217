"""The settings of everything that has an address: AE titles, URLs and secrets, TLS, destinations, Orthanc, DICOMweb.

plugin.settings puts them into the one model; import them from there.
"""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, SecretStr, model_validator


def _ae_title(value: str) -> str:
    """PS3.5 6.2: 1 to 16 characters of the default repertoire, no backslash, not only spaces."""
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def _destination_name(value: str) -> str:
    if not value or len(value) > 64 or not value.isascii() or not value.isprintable():
        raise ValueError("a destination name has 1 to 64 printable ASCII characters")
    return value


def _http_url(value: str) -> str:
    """An absolute http or https address without a trailing slash; credentials in it would end up in logs."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, an IPv6 address without its bracket
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError("write it as http://host:port/path or https://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user name or password in the address: use the settings username and password")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
# Hidden in repr and logs; shown only in the JSON that is handed to a child over a pipe.
Secret = Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), when_used="json")]
AETitle = Annotated[str, AfterValidator(_ae_title)]
# Finite and at most a week: more overflows the timers of sockets and threads, and infinity does not survive JSON.
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
DestinationName = Annotated[str, AfterValidator(_destination_name)]


class Section(BaseModel):
    """One table of settings: fixed once read, and without room for what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Section):
    """TLS for one side of DICOM associations (PS3.15 B.12: BCP 195 profile)."""

    certificate: Path | None = Field(default=None, description="PEM file of our certificate (chain)")
    private_key: Path | None = Field(default=None, description="PEM file of our private key, without a passphrase")
    authorities: Path | None = Field(
        default=None, description="PEM file of the authorities that the peer's certificate needs"
    )
    require_peer_certificate: bool = Field(default=True, description="refuse peers that show no certificate we trust")
    check_hostname: bool = Field(default=True, description="as a client: the certificate must name the host we call")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        return self


class HttpEndpoint(Section):
    """How to reach a web service: address, who we are, whom we trust."""

    url: HttpUrl = Field(description="its address, for example http://127.0.0.1:8042")
    username: str = Field(default="", description="user name for HTTP Basic authentication; empty means none")
    password: Secret = Field(default=SecretStr(""), description="its password")
    token: Secret = Field(
        default=SecretStr(""), description='value of the Authorization header, such as "Bearer ..."; instead of a user'
    )
    authorities: Path | None = Field(
        default=None, description="PEM file of the authorities that the server's certificate needs"
    )
    certificate: Path | None = Field(default=None, description="PEM file of our client certificate, if it wants one")
    private_key: Path | None = Field(default=None, description="PEM file of its private key, without a passphrase")
    connect_seconds: Seconds = Field(default=10.0, description="limit for the TCP connection")
    response_seconds: Seconds = Field(default=60.0, description="longest silence while a response is awaited")

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if self.username and self.token.get_secret_value():
            raise ValueError("username and token exclude each other: give one of them")
        return self


class FolderDestination(Section):
    """Results as files, named by our SOP Instance UIDs."""

    kind: Literal["folder"] = "folder"
    name: DestinationName = Field(default="folder", description="unique; stands in the queue and in the logs")
    path: Path = Field(description="the folder")
    create: bool = Field(default=True, description="make the folder when it is missing; set false for mounted shares")


class CStoreDestination(Section):
    """Results to a remote Storage SCP."""

    kind: Literal["cstore"] = "cstore"
    name: DestinationName = Field(default="pacs", description="unique; stands in the queue and in the logs")
    host: str = Field(description="address of the remote node")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="its TCP port")
    ae_title: AETitle = Field(description="its AE title")
    calling_ae_title: AETitle | None = Field(default=None, description="ours towards it; unset means listener.ae_title")
    connect_seconds: Seconds = Field(default=10.0, description="limit for the TCP connection and the negotiation")
    response_seconds: Seconds = Field(default=60.0, description="limit for one C-STORE response")
    tls: Tls | None = Field(default=None, description="TLS; without it associations are plain")


class OrthancDestination(HttpEndpoint):
    """Results into an Orthanc by its REST API."""

    kind: Literal["orthanc"] = "orthanc"
    name: DestinationName = Field(default="orthanc", description="unique; stands in the queue and in the logs")
    only_known_studies: bool = Field(
        default=False, description="refuse results whose study is not there (any more); set for the Orthanc we serve"
    )


class StowDestination(HttpEndpoint):
    """Results to a DICOMweb server by STOW-RS (PS3.18 10.5)."""

    kind: Literal["stow"] = "stow"
    name: DestinationName = Field(default="dicomweb", description="unique; stands in the queue and in the logs")


AnyDestination = FolderDestination | CStoreDestination | OrthancDestination | StowDestination
Destination = Annotated[AnyDestination, Field(discriminator="kind")]


class Orthanc(HttpEndpoint):
    """The Orthanc that Genu serves: where studies are read and results are put. Its plugin fills in url and token."""

    url: HttpUrl = Field(default="http://127.0.0.1:8042", description="address of its REST API")
    python: Path | None = Field(
        default=None, description="Python that has Genu installed; unset means the one of the plugin's own environment"
    )
    deliver: bool = Field(default=True, description="put report and heatmaps into the study in this Orthanc")
    score_existing: bool = Field(
        default=False, description="score the studies that were there before Genu's first start, too"
    )
    accept_secondary_capture: bool = Field(
        default=False, description="score Secondary Capture images that it keeps (PS3.3 A.8)"
    )
    poll_seconds: Seconds = Field(
        default=1.0, description="how often to ask for changes; the plugin's calls come first"
    )


class DicomWeb(HttpEndpoint):
    """The DICOMweb server that `genu score --study` reads from by QIDO-RS and WADO-RS (PS3.18 10.4 and 10.6)."""

    url: HttpUrl = Field(description="its root, below which /studies lies")
