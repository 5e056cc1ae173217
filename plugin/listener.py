"""The Storage and Verification SCP: accepts, negotiates, and runs one thread for each association.

The upper layer is Genu's own (plugin.wire, plugin.negotiation, plugin.association); docs/listener.md says why and what
is served. The accept loop only accepts: TLS handshake, association request and everything after happen in the thread of
the connection, under a deadline for the whole of it.

    python -m plugin.cli listen --port 11112
"""

import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass

from inference.errors import ConfigurationError
from plugin import logs, routing
from plugin.association import Association, Limits, Services, Serving
from plugin.negotiation import (
    APPLICATION_CONTEXT,
    MAX_REQUEST_BYTES,
    REJECT_CALLED_AE,
    REJECT_CALLING_AE,
    REJECT_CONTEXT_NAME,
    REJECT_LOCAL_LIMIT,
    REJECT_PROTOCOL_VERSION,
    AssociationRequest,
    accept_pdu,
    parse_request,
    reject_pdu,
)
from plugin.outcomes import Caller
from plugin.rows import Source
from plugin.settings import Settings
from plugin.tls import server_context
from plugin.wire import ABORT_UNEXPECTED_PDU, PDU_ASSOCIATE_RQ, Connection, PeerError, ProtocolError, abort_pdu

_log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0  # from the TCP connection to the last byte of the association request, TLS included
MIN_PENDING = 64
PENDING_PER_ASSOCIATION = 4
BACKLOG = 256
ACCEPT_PAUSE_SECONDS = 0.1


@dataclass(eq=False)
class _Peer:
    """One connection and the thread that serves it."""

    sock: socket.socket
    host: str
    thread: threading.Thread | None = None
    established: bool = False


def _plain_host(host: str) -> str:
    """An IPv4 address that came through an IPv6 socket, as IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host


class Listener:
    """A listening socket and its associations. `start`, then `port`; `stop` ends it."""

    def __init__(self, settings: Settings, services: Services, *, request_seconds: float = REQUEST_SECONDS) -> None:
        self._settings = settings
        self._listener = settings.listener
        self._request_seconds = request_seconds
        self._tls = server_context(self._listener.tls) if self._listener.tls else None
        self._stopping = threading.Event()
        limits = Limits(
            max_pdu=self._listener.max_pdu_bytes,
            max_instance=self._listener.max_instance_bytes,
            idle=self._listener.idle_seconds,
        )
        self._serving = Serving(services, limits, self._stopping)
        self._max_pending = max(MIN_PENDING, PENDING_PER_ASSOCIATION * self._listener.max_associations)
        # One host never takes all places, so that the others can always come in.
        self._max_per_host = max(1, self._listener.max_associations * 3 // 4)
        self._lock = threading.Lock()
        self._peers: dict[_Peer, None] = {}  # in the order of their coming
        self._wake, self._waker = socket.socketpair()
        self._socket = self._bind()
        self._thread = threading.Thread(target=self._accept_forever, name="accept", daemon=True)

    def _bind(self) -> socket.socket:
        host, port = self._listener.host, self._listener.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            self._wake.close()
            self._waker.close()
            raise ConfigurationError(
                f"cannot listen on listener.host {host!r}, listener.port {port} ({error.strerror}): "
                "is another program using the port? choose a free one, or 0"
            ) from error

    @property
    def port(self) -> int:
        """The TCP port that is really bound."""
        return int(self._socket.getsockname()[1])

    @property
    def associations(self) -> int:
        """Established associations at this moment."""
        with self._lock:
            return sum(peer.established for peer in self._peers)

    @property
    def connections(self) -> int:
        """Open connections at this moment, those that have not introduced themselves included."""
        with self._lock:
            return len(self._peers)

    @property
    def is_alive(self) -> bool:
        """Whether connections are being accepted."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Accept connections from now on."""
        self._socket.setblocking(False)
        self._thread.start()

    def stop(self, grace: float = 20.0) -> None:
        """Accept no more, let associations finish for at most `grace` seconds, then cut them off."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._waker.send(b"\0")
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        stop = time.monotonic() + grace
        with self._lock:
            waiting = list(self._peers)
        for peer in waiting:
            if not peer.established:
                self._cut(peer)
        for patience in (stop, stop + 5.0):
            for peer in waiting:
                if peer.thread is not None:
                    peer.thread.join(max(0.0, patience - time.monotonic()))
            for peer in waiting:
                self._cut(peer)
        self._wake.close()
        self._waker.close()

    @staticmethod
    def _cut(peer: _Peer) -> None:
        """End a connection from outside of its thread, which then cleans up."""
        with contextlib.suppress(OSError):
            # The plain socket's own method: an SSLSocket would drop its state under the thread that reads it.
            socket.socket.shutdown(peer.sock, socket.SHUT_RDWR)

    def _accept_forever(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if self._stopping.is_set():
                    return
                try:
                    sock, address = self._socket.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # too many open files, or the peer is gone already
                    logs.event(_log, "listener.accept_failed", level=logging.ERROR, error=str(error.strerror))
                    self._stopping.wait(ACCEPT_PAUSE_SECONDS)
                    continue
                self._begin(sock, _plain_host(str(address[0])))

    def _begin(self, sock: socket.socket, host: str) -> None:
        """Give a connection its thread; when too many have not said who they are, the oldest of them has to go."""
        peer = _Peer(sock, host)
        with self._lock:
            pending = [other for other in self._peers if not other.established]
            self._peers[peer] = None
        if len(pending) >= self._max_pending:
            logs.event(_log, "listener.pending_dropped", level=logging.WARNING, peer_host=pending[0].host)
            self._cut(pending[0])
        peer.thread = threading.Thread(target=self._serve, args=(peer,), name="association", daemon=True)
        try:
            peer.thread.start()
        except RuntimeError:  # no more threads
            self._forget(peer)
            sock.close()

    def _forget(self, peer: _Peer) -> None:
        with self._lock:
            self._peers.pop(peer, None)

    def _serve(self, peer: _Peer) -> None:
        """The thread of one connection, from TLS to the end."""
        connection: Connection | None = None
        try:
            deadline = time.monotonic() + self._request_seconds
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                secured = self._tls.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False)
                peer.sock = secured
                secured.settimeout(self._request_seconds)
                secured.do_handshake()
            connection = Connection(peer.sock)
            connection.set_deadline(deadline - time.monotonic())
            self._associate(peer, connection)
        except PeerError as error:
            logs.event(_log, "association.broken", level=logging.WARNING, peer_host=peer.host, error=str(error))
            if connection is not None and error.abort is not None:
                with contextlib.suppress(PeerError):
                    connection.send(abort_pdu(*error.abort))
        except ssl.SSLError as error:
            reason = error.reason or "no reason given"
            logs.event(_log, "association.tls_failed", level=logging.WARNING, peer_host=peer.host, error=reason)
        except OSError as error:
            logs.event(
                _log, "association.broken", level=logging.WARNING, peer_host=peer.host, error=str(error.strerror)
            )
        finally:
            # The place is free before the last bytes linger on the wire; a lingering connection can be dropped.
            peer.established = False
            if connection is not None:
                connection.close()
            else:
                peer.sock.close()
            self._forget(peer)

    def _associate(self, peer: _Peer, connection: Connection) -> None:
        kind, length = connection.pdu_header()
        if kind != PDU_ASSOCIATE_RQ:
            raise ProtocolError(f"PDU type {kind:02X} came instead of an association request", ABORT_UNEXPECTED_PDU)
        if length > MAX_REQUEST_BYTES:
            raise ProtocolError(f"the association request declares {length} bytes, the limit is {MAX_REQUEST_BYTES}")
        request = parse_request(connection.take(length))
        source = Source(calling_ae=request.calling_ae, peer_host=peer.host)
        rejection = self._rejection(request) or self._establish(peer)
        if rejection is not None:
            logs.event(
                _log,
                "association.rejected",
                level=logging.WARNING,
                calling_ae=source.calling_ae,
                peer_host=peer.host,
                reason=".".join(str(part) for part in rejection),
            )
            connection.send(reject_pdu(*rejection))
            return
        begun = time.monotonic()
        connection.send(accept_pdu(request, self._listener.max_pdu_bytes))
        caller = Caller(source, routing.may_send(self._settings, source))
        association = Association(connection, request, caller, self._serving)
        try:
            association.run()
        finally:
            logs.event(
                _log,
                "association.ended",
                calling_ae=source.calling_ae,
                peer_host=peer.host,
                messages=association.messages,
                seconds=round(time.monotonic() - begun, 3),
            )

    def _rejection(self, request: AssociationRequest) -> tuple[int, int, int] | None:
        """Why an association is refused by what the request says, if it is."""
        if not request.protocol_version & 1:
            return REJECT_PROTOCOL_VERSION
        if request.application_context != APPLICATION_CONTEXT:
            return REJECT_CONTEXT_NAME
        if self._listener.require_called_ae and request.called_ae != self._listener.ae_title:
            return REJECT_CALLED_AE
        titles = {known.ae_title for known in self._listener.peers}
        if titles and not titles & {"*", request.calling_ae}:
            return REJECT_CALLING_AE
        return None

    def _establish(self, peer: _Peer) -> tuple[int, int, int] | None:
        """Take a place among the associations, or say that there is none."""
        with self._lock:
            held = Counter(other.host for other in self._peers if other.established)
            if held.total() >= self._listener.max_associations or held[peer.host] >= self._max_per_host:
                return REJECT_LOCAL_LIMIT
            peer.established = True
        return None
