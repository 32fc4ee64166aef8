"""TLS between a TCP transport and a protocol, in memory that is bounded whatever passes.

A `TlsConnection` is the protocol of the TCP transport below it and the transport of the protocol above it. OpenSSL does
the cryptography (`ssl.SSLObject`); here its bytes are moved: what arrives goes into one of its two buffers in memory,
what it has to send is taken out of the other.

Why not the event loop's own: these two buffers never shrink, and uvloop fills them with whatever comes at once, up to
256 KB for a read and a whole body for a write; beside them each connection has 256 KB to read into. A thousand callers
who were each sent 256 KB once cost a worker 0.9 GB for as long as they stayed.

Invariants
- OpenSSL is handed one record's worth at a time (16 KiB), so its buffers hold about two records and stay that small.
- All connections of a thread read into the same memory: what is read is out of it before anything else is read.
- The protocol above is made when the handshake is done; one that fails, or takes too long, is never seen by it. What a
  failed handshake has to say, an alert, is still sent.
- One read below is at most one `data_received` above, so fairness is where it was.
- A close_notify of the peer is `eof_received`, and then we close. A bare FIN is not: the connection is lost, since that
  may be a cut (RFC 8446 section 6.1). After `close` the peer's close_notify is waited for, `goodbye_s` at most.
- Flow control is that of the transport below: its `pause_writing` is passed on as it is.

Left out: half-closing, which TLS cannot in practice, and renewing keys by our own wish.
"""

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, TypeAlias

RECORD_BYTES: Final = 16 * 1024  # of plaintext at most, RFC 8446 section 5.1
READ_BYTES: Final = 256 * 1024  # at once, as uvloop reads without TLS

Data: TypeAlias = bytes | bytearray | memoryview

_WANTS: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_NOBODY: Final = asyncio.Protocol()  # hears nothing


class State(Enum):
    """Where a connection is; it goes down this list and never back."""

    SHAKING = "shaking hands"
    OPEN = "open"
    CLOSING = "waiting for the peer's goodbye"
    CLOSED = "closed"


_SHAKING, _OPEN, _CLOSING, _CLOSED = State  # an enum's member costs a lookup on 3.11, these do not


def _nobody() -> asyncio.Protocol:
    return _NOBODY


def _records(data: Data) -> Iterable[Data]:
    """In pieces of a record at most."""
    if 0 < len(data) <= RECORD_BYTES:
        return (data,)
    view = memoryview(data)
    return (view[start : start + RECORD_BYTES] for start in range(0, len(view), RECORD_BYTES))


class _Shared(threading.local):
    """What the connections of one thread read into."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))


_shared: Final = _Shared()


class TlsConnection(asyncio.Transport, asyncio.BufferedProtocol):
    """One connection. `made` gives the protocol above; `ready`, if given, hears how the handshake went."""

    __slots__ = (
        "_above",
        "_buffer",
        "_fault",
        "_goodbye_s",
        "_handshake_s",
        "_incoming",
        "_made",
        "_outgoing",
        "_paused",
        "_ready",
        "_session",
        "_state",
        "_timer",
        "_unsent",
        "_wire",
    )

    _wire: asyncio.Transport

    def __init__(
        self,
        made: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ready: "asyncio.Future[None] | None" = None,
        handshake_s: float,
        goodbye_s: float,
    ) -> None:
        """With a `server_hostname` we are the client. Raises ValueError for a name that cannot be one."""
        super().__init__()
        self._made = made
        self._above: asyncio.Protocol = _NOBODY
        self._ready = ready
        self._handshake_s = handshake_s
        self._goodbye_s = goodbye_s
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._buffer = _shared.buffer
        self._state = _SHAKING
        self._paused = False
        self._unsent: deque[bytes] = deque()  # what OpenSSL takes only after it has read: a renegotiation, TLS 1.2
        self._fault: ssl.SSLError | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- the transport's side: for the protocol above ---------------------------------------------------------------

    def write(self, data: Data) -> None:
        """Encrypt and send; dropped when the connection is closing."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        """All of it in one write below, so that it costs one call of the kernel."""
        if self.is_closing():
            return
        try:
            records = [self._encrypted(record) for data in list_of_data for record in _records(data)]
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._wire.writelines(records)

    def can_write_eof(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Say goodbye, wait for the peer's, then close; what was written before is sent."""
        if self._state is _OPEN:
            self._say_goodbye()

    def abort(self) -> None:
        """Close at once."""
        self._state = _CLOSED
        self._wire.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._state is not _OPEN or self._wire.is_closing()

    def pause_reading(self) -> None:
        """No `data_received` until `resume_reading`, and nothing is read meanwhile."""
        if not self.is_closing():
            self._paused = True
            self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused and not self.is_closing():
            self._paused = False
            self._wire.resume_reading()
            if self._incoming.pending or self._session.pending():
                asyncio.get_running_loop().call_soon(self._read_on)

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._wire.get_write_buffer_size() + sum(map(len, self._unsent))

    def get_extra_info(self, name: str, default: object = None) -> object:
        """As the transport below says."""
        return self._wire.get_extra_info(name, default)

    # --- the protocol's side: for the transport below ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is connected: shake hands."""
        self._wire = transport  # type: ignore[assignment] # uvloop's transports are duck-typed
        self._timer = asyncio.get_running_loop().call_later(self._handshake_s, self._handshake_late)
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        """Where to read into: the thread's."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read into it."""
        pieces: list[bytes] = []
        ended = False
        for start in range(0, nbytes, RECORD_BYTES):
            self._incoming.write(self._buffer[start : min(start + RECORD_BYTES, nbytes)])
            if self._state is _SHAKING:
                self._shake_hands()
            if not (ended or self._paused or self._state is _SHAKING or self._state is _CLOSED):
                ended = not self._decrypt(pieces)
        self._deliver(pieces, ended=ended)

    def eof_received(self) -> bool:
        """The peer has closed without a goodbye, or after ours."""
        if self._state is _SHAKING:
            self._refuse(ConnectionResetError("the connection was closed during the TLS handshake"))
        self._state = _CLOSED
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        """TCP is gone."""
        self._state = _CLOSED
        self._stop_timer()
        self._tell_ready(exc or ConnectionResetError("the connection was lost during the TLS handshake"))
        above, self._above, self._made = self._above, _NOBODY, _nobody  # a cycle less for the garbage collector
        self._unsent.clear()
        above.connection_lost(self._fault or exc)

    def pause_writing(self) -> None:
        """The peer reads more slowly than we write."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._above.resume_writing()

    # --- the handshake ----------------------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        try:
            self._session.do_handshake()
        except _WANTS:
            self._send()
            return
        except ssl.SSLError as error:
            self._send()  # the alert
            self._refuse(error)
            return
        self._stop_timer()
        self._state = _OPEN
        self._above = self._made()  # type: ignore[assignment] # a protocol of streams: only those are made here
        self._above.connection_made(self)
        self._tell_ready(None)
        # Whoever is ready now writes first, and our last words of the handshake go out in the same packet. A provider
        # that refuses us would else have closed when the request comes, and its reset overtake what it said.
        asyncio.get_running_loop().call_soon(self._send)

    def _refuse(self, error: Exception) -> None:
        """No connection comes about; nobody above hears of it."""
        self._state = _CLOSED
        self._stop_timer()
        self._tell_ready(error)
        self._wire.close()

    def _handshake_late(self) -> None:
        self._tell_ready(ConnectionAbortedError(f"no TLS handshake within {self._handshake_s:g} s"))
        self.abort()

    def _tell_ready(self, error: Exception | None) -> None:
        ready, self._ready = self._ready, None
        if ready is None or ready.done():
            return
        if error is None:
            ready.set_result(None)
        else:
            ready.set_exception(error)

    # --- moving bytes -----------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """What OpenSSL has to send, to the transport below."""
        data = self._outgoing.read()
        if data and not self._wire.is_closing():
            self._wire.write(data)

    def _encrypted(self, record: Data) -> bytes:
        """What there is to send once OpenSSL has taken it; it waits in line where OpenSSL does not take it yet."""
        if not self._unsent:
            try:
                self._session.write(record)  # all of it: a record is whole or not there, and memory is never full
                return self._outgoing.read()
            except _WANTS:
                pass
        self._unsent.append(bytes(record))
        return self._outgoing.read()

    def _decrypt(self, pieces: list[bytes]) -> bool:
        """Add what can be read to `pieces`; False: the peer has said goodbye, or TLS has failed."""
        session, incoming, to_send = self._session, self._incoming, self._outgoing.pending
        try:
            while waiting := incoming.pending + session.pending():  # else OpenSSL would raise, which is dear
                piece = session.read(min(waiting, RECORD_BYTES))
                if not piece:
                    return False
                pieces.append(piece)
        except _WANTS:
            pass
        except ssl.SSLZeroReturnError:  # what a goodbye is called when ours is out
            return False
        except ssl.SSLError as error:
            self._fault = error
            return False
        if self._outgoing.pending > to_send:
            self._send()  # OpenSSL has answered something by itself
        return True

    def _read_on(self) -> None:
        """What arrived before reading was paused."""
        if self._state is _OPEN and not self._paused:
            pieces: list[bytes] = []
            self._deliver(pieces, ended=not self._decrypt(pieces))

    def _deliver(self, pieces: list[bytes], *, ended: bool) -> None:
        """Hand on what was read, then its end."""
        if self._state is _CLOSING:
            if ended:
                self._finish()
            return
        if self._unsent:
            self._write_unsent()
        if pieces and self._state is _OPEN:
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and self._state is _OPEN:
            if self._fault is not None:
                self._fail(self._fault)
                return
            self._above.eof_received()
            self.close()

    def _write_unsent(self) -> None:
        waiting, self._unsent = self._unsent, deque()
        self.writelines(waiting)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        self._state = _CLOSING
        self._paused = False  # or what comes would be kept until the goodbye behind it
        self._decrypt([])  # what nobody will read: OpenSSL would take it for a fault
        waits = False
        try:
            self._session.unwrap()
        except _WANTS:
            waits = not self._wire.is_closing()
        except ssl.SSLError:
            pass  # the session had failed already
        self._send()
        if not waits:
            self._finish()
            return
        self._wire.resume_reading()  # or the peer's goodbye would not be heard
        self._timer = asyncio.get_running_loop().call_later(self._goodbye_s, self._finish)

    def _finish(self) -> None:
        self._state = _CLOSED
        self._stop_timer()
        self._wire.close()

    def _fail(self, error: ssl.SSLError) -> None:
        """TLS itself has failed: nothing more can be said over it."""
        self._fault = error
        self._state = _CLOSED
        self._send()  # the alert
        self._wire.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
