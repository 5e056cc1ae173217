"""TLS contexts after BCP 195 (RFC 9325; PS3.15 annex B.12): 1.2 with forward secrecy and AEAD, or 1.3."""

import ssl

from inference.errors import ConfigurationError
from plugin.settings import Tls

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    """Raises ConfigurationError that names the file."""
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"tls.certificate {tls.certificate} and tls.private_key {tls.private_key} cannot be used ({error}): "
            "give two PEM files that belong together, the key without a passphrase"
        ) from error
    try:
        if tls.authorities is not None:
            context.load_verify_locations(tls.authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"tls.authorities {tls.authorities} cannot be used ({error}): give a PEM file of certificates"
        ) from error


def server_context(tls: Tls) -> ssl.SSLContext:
    """The context of a listener. Raises ConfigurationError."""
    if tls.certificate is None:
        raise ConfigurationError(
            "listener.tls.certificate is missing: a TLS listener needs its own certificate and key"
        )
    if tls.require_peer_certificate and tls.authorities is None:
        raise ConfigurationError(
            "listener.tls.authorities is missing: name the authorities that peers' certificates need, "
            "or set listener.tls.require_peer_certificate = false"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    # No session tickets: a peer that polls its socket takes them for data and blocks (pynetdicom does).
    context.num_tickets = 0
    _load(context, tls)
    if tls.require_peer_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    elif tls.authorities is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context of a caller. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    if not tls.require_peer_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.check_hostname = tls.check_hostname
        if tls.authorities is None:
            context.load_default_certs()
    _load(context, tls)
    return context
