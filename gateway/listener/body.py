"""A request body on its way in: kept whole where it must be read, streamed on where it need not be.

Three ways, by surface. BUFFERED: kept whole, up to `max_body_bytes`. MULTIPART: spooled until it is complete, or until
`spool_bytes` (or the worker's share of memory) is used up and the `model` field is known; from there it goes up as it
arrives. RAW: goes up as it arrives, unless it is short and complete at once. Most bodies are kept whole and are there
with their head already: such a one is a `Whole` from the start.

Invariants: the limit acts while bytes arrive, not at the end; a body that has begun to go up is never kept, so it can
be sent once only; what was taken from the worker's spool is given back exactly once.
"""

from typing import Final, Protocol

from gateway.dialects.base import BodyMode, RequestFacts
from gateway.dialects.multipart import FormReader
from gateway.errors import BodyTooLarge, InvalidRequest, Overloaded
from gateway.listener.head import Head
from gateway.relay.outgoing import UploadSink
from gateway.units import KIB

_RAW: Final = BodyMode.RAW
_MULTIPART: Final = BodyMode.MULTIPART
_RAW_WAIT_BYTES: Final = 64 * KIB  # a raw body announced shorter than this is waited for: then it can be retried


class Spool:
    """Memory one worker may use for multipart bodies, together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False when they are not to be had."""
        if self.used + size > self.total:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Return what was taken."""
        self.used -= size


class Limits:
    """The sizes a body must keep to; one object per snapshot."""

    def __init__(self, max_body_bytes: int, spool_bytes: int, spool: Spool) -> None:
        self.max_body_bytes = max_body_bytes
        self.spool_bytes = spool_bytes
        self.spool = spool


class Owner(Protocol):
    """The connection a body arrives on."""

    def start(self) -> None:
        """The body is ready for the pipeline."""

    def pause_reading(self) -> None:
        """Take no more bytes from the caller."""

    def resume_reading(self) -> None:
        """Take bytes from the caller again."""


class Whole:
    """A body that is kept whole, and came so; as the pipeline sees a `Body`. Raises BodyTooLarge."""

    __slots__ = ("body", "encoding", "facts", "length")

    upload = None

    def __init__(self, body: bytes, head: Head, limits: Limits) -> None:
        self.body = body
        self.length = len(body)
        self.encoding = head.encoding
        self.facts: RequestFacts | None = None
        if self.length > limits.max_body_bytes:
            raise _too_large(limits)

    def release(self) -> None:
        """The exchange is over: let go of the bytes."""
        self.body = b""


class Body:
    """One request's body. `owner.start` is called once: when the pipeline can begin.

    `length` is -1 for a chunked body until it is complete.
    """

    def __init__(self, head: Head, length: int, limits: Limits, owner: Owner) -> None:
        mode = head.mode
        self.length = length
        self.encoding = head.encoding if mode is not _RAW else b""
        self._mode = mode
        self._limits = limits
        self._owner = owner
        self._chunks: list[bytes] = []
        self.body = b""
        self.facts: RequestFacts | None = None
        self.upload: Body | None = None
        self.received = 0
        self.complete = False
        self._started = False
        self._spooled = 0
        self._sink: UploadSink | None = None
        self._paused = False  # by the provider
        self._form: FormReader | None = None
        if mode is _MULTIPART:
            self._form = FormReader(head.content_type)
        if mode is not _RAW and length > limits.max_body_bytes:
            raise _too_large(limits)

    # --- as it arrives ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is accepted: a raw body may start on its way before it is complete."""
        if self._mode is _RAW and not 0 <= self.length <= _RAW_WAIT_BYTES:
            self._start_upload()

    def feed(self, data: bytes) -> None:
        """More bytes. Raises BodyTooLarge, InvalidRequest or Overloaded when they cannot be taken."""
        self.received += len(data)
        if self.received > self._limits.max_body_bytes and self._mode is not _RAW:
            raise _too_large(self._limits)
        if self._form is not None:
            self._form.feed(data)
        if self._sink is not None:
            self._sink.upload_data(data)
            return
        self._chunks.append(data)
        if self._form is not None and not self._started:
            self._spool(len(data), self._form)

    def finish(self) -> None:
        """The body is complete. Raises InvalidRequest for a form that is not."""
        self.complete = True
        if self._form is not None:
            self.facts = self._form.finish()
        if self._started:
            if self._sink is not None:
                self._sink.upload_end()
            return
        chunks = self._chunks
        self.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.length = len(self.body)
        self._started = True
        self._owner.start()

    def release(self) -> None:
        """The exchange is over: give back what was spooled, and let go of the bytes."""
        self.body = b""
        if self._spooled:
            self._limits.spool.give(self._spooled)
            self._spooled = 0
        self._sink = None

    # --- relay.outgoing.Upload --------------------------------------------------------------------------------------

    def attach(self, sink: UploadSink) -> None:
        """Deliver everything behind the prefix to `sink`."""
        self._sink = sink
        chunks, self._chunks = self._chunks, []
        for data in chunks:
            sink.upload_data(data)
        if self.complete:
            sink.upload_end()
        elif not self._paused:  # what was here may have been more than the provider takes
            self._owner.resume_reading()

    def pause(self) -> None:
        """The provider is slower than the caller."""
        self._paused = True
        if not self.complete:
            self._owner.pause_reading()

    def resume(self) -> None:
        """The provider takes bytes again."""
        self._paused = False
        if not self.complete:
            self._owner.resume_reading()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _spool(self, size: int, form: FormReader) -> None:
        if self.received <= self._limits.spool_bytes and self._limits.spool.take(size):
            self._spooled += size
        elif form.facts is not None:
            form.release()
            self.facts = form.facts
            self._start_upload()
        elif self.received > self._limits.spool_bytes:
            raise InvalidRequest(
                f"the form's `model` field must come within the first {self._limits.spool_bytes} bytes: "
                "send it before the file",
                param="model",
            )
        else:
            raise Overloaded("too many large uploads are in progress: retry in a moment", retry_after_s=1)

    def _start_upload(self) -> None:
        """From here the body goes up as it arrives; what is here already is its prefix."""
        self._started = True
        self.body = b"".join(self._chunks)
        self._chunks = []
        self.upload = self
        self._owner.pause_reading()  # until the provider's connection is there to take more
        self._owner.start()


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than this gateway's limit of {limits.max_body_bytes} bytes")
