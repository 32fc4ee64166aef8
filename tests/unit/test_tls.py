"""TLS in memory: two connections with nothing but a queue of bytes between them, cut wherever a test likes."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway import tls
from gateway.tls import READ_BYTES, RECORD_BYTES, TlsConnection
from tests.fakes.authority import Authority

NAME = "gateway.test"
RECORD_ROOM = 256  # what a record adds to its plaintext, and more


class Wire(asyncio.Transport):
    """A TCP transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = self.aborted = False
        self.reading: list[bool] = []  # as it was told
        self.ended = asyncio.Event()

    def write(self, data: tls.Data) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[tls.Data]) -> None:
        for data in list_of_data:
            self.write(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading.append(False)

    def resume_reading(self) -> None:
        self.reading.append(True)

    def get_write_buffer_size(self) -> int:
        return 7

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("192.0.2.1", 1) if name == "peername" else default


class Above(asyncio.Protocol):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.data: list[bytes] = []
        self.lost: Exception | None = None
        self.on_data: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsConnection)
        self.heard.append("made")

    def data_received(self, data: bytes) -> None:
        self.data.append(data)
        self.on_data()

    def eof_received(self) -> None:
        self.heard.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")
        self.lost = exc

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


class Contexts(NamedTuple):
    client: ssl.SSLContext
    server: ssl.SSLContext
    stranger: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder), Authority(folder, "other")
    client, stranger = (ssl.create_default_context(cafile=one.ca_file) for one in (authority, other))
    return Contexts(client, authority.server(NAME), stranger)


class End:
    """One of the two: the connection under test, and what is above and below it."""

    def __init__(self, context: ssl.SSLContext, name: str | None, goodbye_s: float, handshake_s: float) -> None:
        self.above, self.wire = Above(), Wire()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tls = TlsConnection(
            lambda: self.above,
            context,
            server_hostname=name,
            ready=self.ready,
            handshake_s=handshake_s,
            goodbye_s=goodbye_s,
        )
        self.tls.connection_made(self.wire)

    def reads(self, data: bytes) -> None:
        """As an event loop would: into the buffer that it is given."""
        buffer = self.tls.get_buffer(-1)
        buffer[: len(data)] = data
        self.tls.buffer_updated(len(data))

    @property
    def received(self) -> bytes:
        return b"".join(self.above.data)


class Pair:
    """A client and a server; `pass_on` carries what they have written, in pieces of a given size."""

    def __init__(
        self,
        contexts: Contexts,
        *,
        client: ssl.SSLContext | None = None,
        goodbye_s: float = 60,
        handshake_s: float = 60,
    ) -> None:
        self.server = End(contexts.server, None, goodbye_s, handshake_s)
        self.client = End(client or contexts.client, NAME, goodbye_s, handshake_s)

    async def pass_on(self, sizes: Iterator[int] | None = None) -> None:
        """Until nobody has anything to say."""
        quiet = 0
        while quiet < 3:  # a turn for what is said in the next one
            await asyncio.sleep(0)
            moved = [self._carry(*ends, sizes) for ends in ((self.client, self.server), (self.server, self.client))]
            quiet = 0 if any(moved) else quiet + 1

    def _carry(self, source: End, to: End, sizes: Iterator[int] | None) -> bool:
        data = b"".join(source.wire.sent)
        source.wire.sent.clear()
        start = 0
        while start < len(data) and not to.wire.closed:
            size = next(sizes) if sizes else READ_BYTES
            to.reads(data[start : start + size])
            start += size
        return bool(data)


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(work, 30))


async def shaken(contexts: Contexts, **options: float) -> Pair:
    pair = Pair(contexts, **options)  # type: ignore[arg-type] # only times are given here
    await pair.pass_on()
    assert pair.client.ready.result() is pair.server.ready.result() is None
    return pair


# --- what passes ----------------------------------------------------------------------------------------------------


@given(
    said=st.lists(st.integers(0, 70_000), max_size=5),
    answered=st.lists(st.integers(1, 40_000), max_size=5),
    sizes=st.lists(st.integers(1, READ_BYTES), min_size=1, max_size=8),
)
def test_everything_arrives_however_it_is_written_and_cut(
    contexts: Contexts, said: list[int], answered: list[int], sizes: list[int]
) -> None:
    async def main() -> None:
        def cuts() -> Iterator[int]:
            yield from sizes
            while True:
                yield max(sizes[-1], 997)

        pair = Pair(contexts)
        await pair.pass_on(cuts())
        ours, theirs = [bytes([n]) * size for n, size in enumerate(said)], [b"z" * size for size in answered]
        for data in ours:
            pair.client.tls.write(data)
        pair.server.tls.writelines(theirs)
        await pair.pass_on(cuts())
        assert pair.server.received == b"".join(ours)
        assert pair.client.received == b"".join(theirs)
        assert pair.client.above.heard == pair.server.above.heard == ["made"]

    run(main())


def test_openssl_is_handed_a_record_at_a_time(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    decrypt = TlsConnection._decrypt

    def watched(connection: TlsConnection, pieces: list[bytes]) -> bool:
        waiting.append(connection._incoming.pending)
        return decrypt(connection, pieces)

    async def main() -> None:
        pair = await shaken(contexts)
        monkeypatch.setattr(TlsConnection, "_decrypt", watched)
        pair.server.tls.write(b"a" * 1_000_000)
        assert len(pair.server.wire.sent) == -(-1_000_000 // RECORD_BYTES)
        assert max(map(len, pair.server.wire.sent)) <= RECORD_BYTES + RECORD_ROOM
        await pair.pass_on()
        assert pair.client.received == b"a" * 1_000_000
        assert max(waiting) <= 2 * RECORD_BYTES + RECORD_ROOM
        assert len(pair.client.above.data) == 4  # as many as there were reads

    run(main())


def test_connections_share_what_they_read_into_and_not_what_they_read(contexts: Contexts) -> None:
    async def main() -> None:
        one, other = await shaken(contexts), await shaken(contexts)
        assert one.client.tls.get_buffer(-1) is other.server.tls.get_buffer(-1)
        one.client.tls.write(b"a" * 50_000)
        other.client.tls.write(b"b" * 50_000)
        halves = [b"".join(pair.client.wire.sent) for pair in (one, other)]
        for part in (slice(0, 20_000), slice(20_000, None)):
            for pair, sent in zip((one, other), halves, strict=True):
                pair.server.reads(sent[part])
        assert (one.server.received, other.server.received) == (b"a" * 50_000, b"b" * 50_000)

    run(main())


def test_flow_control_is_that_of_the_transport_below(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.server.tls.pause_writing()
        pair.server.tls.resume_writing()
        assert pair.server.above.heard == ["made", "pause", "resume"]
        assert pair.server.tls.get_write_buffer_size() == 7
        assert pair.server.tls.get_extra_info("peername") == ("192.0.2.1", 1)
        assert not pair.server.tls.can_write_eof()

    run(main())


def test_a_paused_connection_delivers_nothing_until_it_reads_on(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.server.tls.pause_reading()
        pair.client.tls.write(b"early")
        await pair.pass_on()  # it was under way
        assert pair.server.received == b""
        pair.server.tls.resume_reading()
        assert pair.server.wire.reading == [False, True]
        await asyncio.sleep(0)
        assert pair.server.received == b"early"

    run(main())


class Session:
    """A session of which a test replaces some methods: what OpenSSL does only if the peer wants it."""

    def __init__(self, end: End, **methods: Callable[..., object]) -> None:
        self._session, self._methods = end.tls._session, methods
        end.tls._session = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> object:
        return self._methods.get(name) or getattr(self._session, name)


def test_what_openssl_takes_only_after_reading_waits_in_order(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        write, busy = pair.client.tls._session.write, [True]  # as in a renegotiation, which Python cannot ask for

        def written(data: bytes) -> int:
            if busy:
                raise ssl.SSLWantReadError
            return write(data)

        Session(pair.client, write=written)
        pair.client.tls.write(b"first ")
        pair.client.tls.write(b"second")
        assert pair.client.tls.get_write_buffer_size() == 7 + len(b"first second")
        busy.clear()
        pair.server.tls.write(b"go on")
        await pair.pass_on()
        assert (pair.server.received, pair.client.received) == (b"first second", b"go on")

    run(main())


def test_what_openssl_answers_by_itself_is_sent(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)

        def read(_: int) -> bytes:
            pair.client.tls._incoming.read()
            pair.client.tls._outgoing.write(b"keys renewed")  # as a KeyUpdate is answered
            raise ssl.SSLWantReadError

        Session(pair.client, read=read)
        pair.client.reads(b"key update")
        assert pair.client.wire.sent == [b"keys renewed"]

    run(main())


# --- the handshake --------------------------------------------------------------------------------------------------


def test_whoever_is_refused_is_told_why_and_nobody_above_hears_of_it(contexts: Contexts) -> None:
    async def main() -> None:
        pair = Pair(contexts, client=contexts.stranger)
        await pair.pass_on()
        assert isinstance(pair.client.ready.exception(), ssl.SSLCertVerificationError)
        refused = pair.server.ready.exception()
        assert isinstance(refused, ssl.SSLError)
        assert refused.reason == "TLSV1_ALERT_UNKNOWN_CA"
        for end in (pair.client, pair.server):
            assert end.wire.closed
            end.tls.connection_lost(None)
            assert end.above.heard == []

    run(main())


def test_who_says_nothing_is_waited_for_a_bounded_time(contexts: Contexts) -> None:
    async def main() -> None:
        pair = Pair(contexts, handshake_s=0.001)
        with pytest.raises(ConnectionAbortedError, match=r"within 0\.001 s"):
            await pair.server.ready
        assert pair.server.wire.aborted
        with pytest.raises(ConnectionAbortedError):
            await pair.client.ready

    run(main())


@pytest.mark.parametrize("ending", ["eof", "lost"])
def test_an_end_during_the_handshake_is_an_error_of_it(contexts: Contexts, ending: str) -> None:
    async def main() -> None:
        end = Pair(contexts).client
        if ending == "eof":
            assert not end.tls.eof_received()
        end.tls.connection_lost(None)
        assert isinstance(end.ready.exception(), ConnectionResetError)
        assert end.above.heard == []

    run(main())


def test_the_last_words_of_the_handshake_go_with_the_first_request(contexts: Contexts) -> None:
    async def main() -> None:
        pair = Pair(contexts)
        hello = b"".join(pair.client.wire.sent)
        pair.client.wire.sent.clear()
        pair.server.reads(hello)
        pair.client.reads(b"".join(pair.server.wire.sent))
        assert pair.client.wire.sent == []
        pair.client.tls.write(b"GET")
        assert len(pair.client.wire.sent) == 1

    run(main())


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_an_end_and_is_answered(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.tls.write(b"last words")
        pair.client.tls.close()
        assert pair.client.tls.is_closing()
        assert not pair.client.wire.is_closing()  # the other one's goodbye is waited for
        await pair.pass_on()
        assert pair.server.received == b"last words"
        assert pair.server.above.heard == ["made", "eof"]
        assert pair.server.wire.closed
        assert pair.client.wire.closed
        assert not pair.client.wire.aborted
        pair.client.tls.connection_lost(None)
        assert pair.client.above.heard == ["made", "lost"]
        assert pair.client.above.lost is None

    run(main())


def test_a_cut_is_no_end(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        assert not pair.client.tls.eof_received()
        assert pair.client.tls.is_closing()
        pair.client.tls.connection_lost(None)
        assert pair.client.above.heard == ["made", "lost"]

    run(main())


def test_a_goodbye_that_does_not_come_is_not_waited_for_long(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts, goodbye_s=0.001)
        pair.client.tls.pause_reading()
        pair.client.tls.close()
        assert pair.client.wire.reading == [False, True]  # or it would not be heard
        await pair.client.wire.ended.wait()
        assert not pair.client.wire.aborted  # what the kernel has not taken yet is still sent

    run(main())


def test_what_arrives_after_closing_is_nobodys(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.server.tls.write(b"too late" * 10_000)
        pair.client.tls.close()
        await pair.pass_on()
        assert pair.client.received == b""
        assert pair.client.wire.closed

    run(main())


def test_who_closes_while_paused_keeps_nothing_of_what_still_comes(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.tls.pause_reading()
        pair.server.tls.write(b"too late" * 100_000)
        pair.client.tls.close()
        pair.client.wire.sent, goodbye = [], pair.client.wire.sent
        await pair.pass_on()
        assert pair.client.tls._incoming.pending <= RECORD_BYTES + RECORD_ROOM
        assert not pair.client.wire.ended.is_set()
        pair.client.wire.sent = goodbye
        await pair.pass_on()
        assert pair.client.wire.closed
        assert pair.client.received == b""

    run(main())


def test_closing_while_data_is_heard_delivers_no_more(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.above.on_data = pair.client.tls.close
        pair.server.tls.write(b"one")
        await pair.pass_on()
        pair.server.tls.write(b"two")
        await pair.pass_on()
        assert pair.client.received == b"one"
        assert pair.client.above.heard == ["made"]

    run(main())


def test_nothing_is_written_once_it_is_closing(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.tls.abort()
        assert pair.client.wire.aborted
        pair.client.tls.write(b"x")
        pair.client.tls.pause_reading()
        pair.client.tls.resume_reading()
        pair.client.tls.close()
        assert pair.client.wire.sent == []
        broken = await shaken(contexts)
        broken.client.wire.closed = True  # by the kernel's word, before connection_lost
        broken.client.tls.write(b"x")
        broken.client.tls.close()
        assert broken.client.wire.sent == []

    run(main())


def test_bytes_that_are_not_tls_end_the_connection_with_the_reason(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.tls.write(b"good")
        sent = b"".join(pair.client.wire.sent)
        pair.server.reads(sent + b"GET / HTTP/1.1\r\n\r\n")
        assert pair.server.received == b"good"
        assert pair.server.wire.aborted
        pair.server.tls.connection_lost(None)
        assert isinstance(pair.server.above.lost, ssl.SSLError)
        assert pair.server.above.heard == ["made", "lost"]

    run(main())


def fails(*_: object) -> int:
    raise ssl.SSLError(1, "no more")


def test_a_session_that_fails_while_writing_ends_the_connection(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        Session(pair.client, write=fails)
        pair.client.tls.write(b"a" * 3 * RECORD_BYTES)
        assert pair.client.wire.aborted
        pair.client.tls.connection_lost(None)
        assert isinstance(pair.client.above.lost, ssl.SSLError)

    run(main())


def test_a_session_that_cannot_say_goodbye_is_closed_all_the_same(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        Session(pair.client, unwrap=fails)
        pair.client.tls.close()
        assert pair.client.wire.closed

    run(main())


def test_a_closed_connection_and_what_was_above_it_do_not_know_each_other(contexts: Contexts) -> None:
    async def main() -> None:
        pair = await shaken(contexts)
        pair.client.tls.connection_lost(None)
        assert pair.client.tls._above is tls._NOBODY
        assert pair.client.tls._made() is tls._NOBODY

    run(main())
