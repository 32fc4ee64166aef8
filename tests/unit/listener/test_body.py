"""Bodies on their way in: kept, spooled or passed on, within limits that act while bytes arrive."""

import pytest

from gateway.dialects.base import BodyMode
from gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, Overloaded
from gateway.listener.body import Body, Limits, Spool, Whole
from gateway.listener.head import Head
from gateway.units import KIB

MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--b--\r\n"


class Connection:
    """The connection a body arrives on."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


class Provider:
    """Where an upload goes."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def upload_data(self, data: bytes) -> None:
        self.data += data

    def upload_end(self) -> None:
        self.ended = True


def limits(*, max_body: int = 1000, spool: int = 500, total: int = 10_000) -> Limits:
    return Limits(max_body, spool, Spool(total))


def body(mode: BodyMode, length: int, given: Limits | None = None, encoding: bytes = b"") -> tuple[Body, Connection]:
    head = Head("POST", version_11=True)
    head.mode = mode
    head.encoding = encoding
    head.content_type = b"multipart/form-data; boundary=b"
    connection = Connection()
    made = Body(head, length, given or limits(), connection)
    made.begin()
    return made, connection


# --- buffered -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, -1])
def test_a_buffered_body_starts_the_pipeline_when_it_is_whole(length: int) -> None:
    made, connection = body(BodyMode.BUFFERED, length)
    for data in (b"01234", b"5678", b"9"):
        made.feed(data)
    assert connection.calls == []
    made.finish()
    assert connection.calls == ["start"]
    assert (made.body, made.length, made.upload, made.facts) == (b"0123456789", 10, None, None)


def test_an_empty_body() -> None:
    made, connection = body(BodyMode.NONE, 0)
    made.finish()
    assert (made.body, made.length, connection.calls) == (b"", 0, ["start"])


def test_the_limit_is_exact_and_acts_at_once() -> None:
    made, _ = body(BodyMode.BUFFERED, -1, limits(max_body=10))
    made.feed(b"x" * 10)
    with pytest.raises(BodyTooLarge):
        made.feed(b"x")
    body(BodyMode.BUFFERED, 10, limits(max_body=10))
    with pytest.raises(BodyTooLarge):
        body(BodyMode.BUFFERED, 11, limits(max_body=10))


def test_an_encoding_is_the_pipelines_matter_but_not_that_of_raw_bodies() -> None:
    assert body(BodyMode.BUFFERED, 1, encoding=b"gzip")[0].encoding == b"gzip"
    assert body(BodyMode.RAW, 1, encoding=b"gzip")[0].encoding == b""


# --- raw ------------------------------------------------------------------------------------------------------------


def test_a_short_raw_body_is_waited_for() -> None:
    made, connection = body(BodyMode.RAW, 64 * KIB)
    made.feed(b"x" * 64 * KIB)
    assert connection.calls == []
    made.finish()
    assert (len(made.body), made.upload, connection.calls) == (64 * KIB, None, ["start"])


@pytest.mark.parametrize("length", [64 * KIB + 1, -1])
def test_a_long_raw_body_goes_up_as_it_arrives_without_limit(length: int) -> None:
    made, connection = body(BodyMode.RAW, length, limits(max_body=10))
    assert connection.calls == ["pause", "start"]
    assert (made.upload, made.length, made.body) == (made, length, b"")
    made.feed(b"in the same read")
    provider = Provider()
    made.attach(provider)
    assert (provider.data, connection.calls[-1]) == (b"in the same read", "resume")
    made.feed(b"!" * 100)
    assert provider.data == b"in the same read" + b"!" * 100
    made.finish()
    assert provider.ended


def test_a_raw_body_that_is_whole_before_anyone_takes_it() -> None:
    made, connection = body(BodyMode.RAW, -1)
    made.feed(b"all")
    made.finish()
    provider = Provider()
    made.attach(provider)
    assert (provider.data, provider.ended) == (b"all", True)
    assert connection.calls == ["pause", "start"]


def test_a_provider_stops_and_starts_an_upload_until_it_is_whole() -> None:
    made, connection = body(BodyMode.RAW, -1)
    made.attach(Provider())
    connection.calls.clear()
    made.pause()
    made.resume()
    assert connection.calls == ["pause", "resume"]
    made.finish()
    made.pause()
    made.resume()
    assert connection.calls == ["pause", "resume"]


def test_an_upload_whose_beginning_was_too_much_stays_stopped() -> None:
    made, connection = body(BodyMode.RAW, -1)
    made.feed(b"much")
    made.pause()  # the provider's buffer is full before the rest is attached
    made.attach(Provider())
    assert "resume" not in connection.calls
    made.resume()
    assert connection.calls[-1] == "resume"


def test_after_its_exchange_a_body_goes_nowhere() -> None:
    made, _ = body(BodyMode.RAW, -1)
    provider = Provider()
    made.attach(provider)
    made.release()
    made.feed(b"late")
    assert provider.data == b""


# --- multipart ------------------------------------------------------------------------------------------------------


def test_a_form_is_spooled_until_it_is_whole() -> None:
    given = limits()
    form = MODEL + FILE + b"abc" + END
    made, connection = body(BodyMode.MULTIPART, len(form), given)
    for byte in form:
        made.feed(bytes([byte]))
    assert given.spool.used == len(form)
    made.finish()
    assert made.facts is not None
    assert (made.facts.model, made.body, made.upload, connection.calls) == ("gpt", form, None, ["start"])
    made.release()
    made.release()
    assert given.spool.used == 0


def test_a_large_form_goes_up_once_its_model_is_known() -> None:
    given = limits(max_body=10_000, spool=200)
    made, connection = body(BodyMode.MULTIPART, -1, given)
    made.feed(MODEL + FILE)
    made.feed(b"x" * 100)
    assert connection.calls == ["pause", "start"]
    assert made.facts is not None
    assert (made.facts.model, made.body) == ("gpt", MODEL + FILE + b"x" * 100)
    provider = Provider()
    made.attach(provider)
    made.feed(b"y" * 1000)
    made.feed(END)
    made.finish()
    assert (provider.data, provider.ended) == (b"y" * 1000 + END, True)
    made.release()
    assert given.spool.used == 0


def test_a_large_form_whose_model_comes_too_late() -> None:
    made, _ = body(BodyMode.MULTIPART, -1, limits(spool=200))
    made.feed(FILE)
    with pytest.raises(InvalidRequest) as caught:
        made.feed(b"x" * 200)
    assert caught.value.param == "model"


def test_a_form_may_go_up_early_when_the_worker_has_no_room() -> None:
    given = limits(total=150)
    made, connection = body(BodyMode.MULTIPART, -1, given)
    made.feed(MODEL + FILE)
    made.feed(b"x" * 100)
    assert connection.calls == ["pause", "start"]
    other, _ = body(BodyMode.MULTIPART, -1, given)
    with pytest.raises(Overloaded) as caught:
        other.feed(FILE + b"x" * 80)
    assert caught.value.retry_after_s == 1
    other.release()
    made.release()
    assert given.spool.used == 0


@pytest.mark.parametrize(
    ("late", "error"),
    [(b"\r\n" + MODEL.replace(b"gpt", b"other"), InvalidRequest), (b"x" * 5000, BodyTooLarge)],
    ids=["second model", "too large"],
)
def test_a_form_is_still_read_and_bounded_after_it_has_begun_to_go_up(late: bytes, error: type[GatewayError]) -> None:
    made, _ = body(BodyMode.MULTIPART, -1, limits(max_body=2000, spool=200))
    made.feed(MODEL + FILE + b"x" * 200)
    provider = Provider()
    made.attach(provider)
    with pytest.raises(error):
        made.feed(late)
    assert late not in provider.data


def test_a_form_that_is_cut_is_refused_at_its_end() -> None:
    for spool in (10_000, 200):
        made, _ = body(BodyMode.MULTIPART, -1, limits(spool=spool, max_body=10_000))
        made.feed(MODEL + FILE + b"x" * 300)
        with pytest.raises(InvalidRequest):
            made.finish()


def test_a_form_needs_a_boundary() -> None:
    head = Head("POST", version_11=True)
    head.mode = BodyMode.MULTIPART
    head.content_type = b"multipart/form-data"
    with pytest.raises(InvalidRequest):
        Body(head, 10, limits(), Connection())


# --- the spool ------------------------------------------------------------------------------------------------------


def test_a_spool_gives_what_it_has() -> None:
    spool = Spool(10)
    assert spool.take(6)
    assert not spool.take(5)
    assert spool.take(4)
    spool.give(6)
    assert (spool.take(6), spool.used) == (True, 10)


# --- whole ----------------------------------------------------------------------------------------------------------


def test_a_body_that_came_whole_is_what_the_same_would_be_in_pieces() -> None:
    head = Head("POST", version_11=True)
    head.mode, head.encoding = BodyMode.BUFFERED, b"gzip"
    whole, pieces = Whole(b"{}", head, limits()), body(BodyMode.BUFFERED, 2, encoding=b"gzip")[0]
    pieces.feed(b"{}")
    pieces.finish()
    for name in ("body", "length", "encoding", "facts", "upload"):
        assert getattr(whole, name) == getattr(pieces, name)
    whole.release()
    assert whole.body == b""


def test_a_whole_body_has_the_same_limit() -> None:
    head = Head("POST", version_11=True)
    assert Whole(b"x" * 10, head, limits(max_body=10)).length == 10
    with pytest.raises(BodyTooLarge):
        Whole(b"x" * 11, head, limits(max_body=10))
