"""TLS with real certificates: DCMTK as the peer, silent peers, and peers without a certificate."""

import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from inference.errors import ConfigurationError
from plugin.settings import Tls
from plugin.tls import client_context, server_context
from tests.plugin.receiving import HOST, RawPeer, associate_rq, dcmtk, instance, listening, wait_until, write


@dataclass(frozen=True)
class Pki:
    """Files of an authority, a server and a client certificate."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "certificate": str(self.certificate),
            "private_key": str(self.key),
            "authorities": str(self.authority),
        }


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """One authority, and one certificate for 127.0.0.1 that it signed."""
    folder = tmp_path_factory.mktemp("pki")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    openssl(*new, "-x509", "-days", 2, "-subj", "/CN=Test authority", "-keyout", ca_key, "-out", ca)
    key, wish, certificate = folder / "genu.key", folder / "genu.csr", folder / "genu.pem"
    openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", wish)
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ["x509", "-req", "-days", 2, "-in", wish, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"]
    openssl(*signing, "-extfile", extensions, "-out", certificate)
    return Pki(ca, certificate, key)


def test_storescu_with_tls_stores_and_plain_peers_do_not(tmp_path: Path, pki: Pki) -> None:
    file = write(instance(), tmp_path / "a.dcm")
    with listening(tmp_path / "data", tls=pki.settings) as running:
        dcmtk("storescu", "+tls", pki.key, pki.certificate, "+cf", pki.authority, HOST, running.port, file)
        assert len(running.rows()) == 1
        dcmtk("echoscu", "-ta", 3, "-td", 3, HOST, running.port, ok=False)


def test_pynetdicom_with_tls_13_and_12(tmp_path: Path, pki: Pki) -> None:
    with listening(tmp_path, tls=pki.settings) as running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(Tls(**pki.settings))
            context.minimum_version = context.maximum_version = version
            entity = AE("PEER")
            ds = instance()
            entity.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
            association = entity.associate(HOST, running.port, tls_args=(context, HOST))
            assert association.is_established
            assert association.send_c_store(ds).Status == 0
            association.release()
        assert len(running.rows()) == 2


def test_peer_without_a_certificate_is_refused(tmp_path: Path, pki: Pki) -> None:
    with listening(tmp_path, tls=pki.settings) as running:
        anonymous = client_context(Tls(authorities=pki.authority))
        with pytest.raises(OSError), secured_peer(running.port, anonymous) as secured:
            secured.sendall(associate_rq())
            if not secured.recv(1):
                raise ConnectionResetError
        with RawPeer(running.port, secured_peer(running.port, client_context(Tls(**pki.settings)))) as peer:
            peer.associate()
            assert peer.echo() == 0


def secured_peer(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection((HOST, port), 5), server_hostname=HOST)


def test_old_protocol_versions_are_refused(tmp_path: Path, pki: Pki) -> None:
    with listening(tmp_path, tls=pki.settings) as running:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki.authority)
        context.load_cert_chain(pki.certificate, pki.key)
        context.set_ciphers("AES128-SHA:AES256-SHA:@SECLEVEL=0")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):
            secured_peer(running.port, context).close()


def test_thirty_silent_tcp_peers_do_not_stop_a_tls_listener(tmp_path: Path, pki: Pki) -> None:
    file = write(instance(), tmp_path / "a.dcm")
    with listening(tmp_path / "data", tls=pki.settings, request_seconds=1.0) as running:
        silent = [RawPeer(running.port) for _ in range(30)]
        for peer in silent[:15]:
            peer.send(b"\x16\x03\x01")
        dcmtk("storescu", "+tls", pki.key, pki.certificate, "+cf", pki.authority, HOST, running.port, file)
        for peer in silent:
            peer.sock.settimeout(5)
            assert peer.pdu()[0] in (0, 21), "closed, with or without a TLS alert"
            peer.close()
        wait_until(lambda: running.listener.connections == 0)


def test_missing_and_wrong_files_are_settings_errors(tmp_path: Path, pki: Pki) -> None:
    with pytest.raises(ConfigurationError, match="certificate is missing"):
        server_context(Tls())
    with pytest.raises(ConfigurationError, match="authorities is missing"):
        server_context(Tls(certificate=pki.certificate, private_key=pki.key))
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        server_context(Tls(certificate=tmp_path / "nowhere.pem", private_key=pki.key, authorities=pki.authority))
    with pytest.raises(ConfigurationError, match="authorities"):
        client_context(Tls(authorities=pki.key))
