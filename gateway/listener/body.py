"""A request body on its way in: kept whole where it must be read, streamed on where it need not be.

Three ways, by surface. BUFFERED: kept whole, up to `max_body_bytes`. MULTIPART: spooled until it is complete, or until
`spool_bytes` (or the worker's share of memory) is used up and the `model` field is known; from there it goes up as it
arrives. RAW: goes up as it arrives, unless it is short and complete at once.

Invariants: the limit acts while bytes arrive, not at the end; a body that has begun to go up is never kept, so it can
be sent once only; what was taken from the worker's spool is given back exactly once.
"""

from collections.abc import Callable
from typing import Final

from gateway.dialects.base import BodyMode, RequestFacts
from gateway.dialects.multipart import FormReader
from gateway.errors import BodyTooLarge, InvalidRequest, Overloaded
from gateway.relay.outgoing import UploadSink
from gateway.units import KIB

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


class Body:
    """One request's body. `ready` is called once: when the pipeline can start."""

    __slots__ = (
        "_chunks",
        "_form",
        "_limits",
        "_mode",
        "_pause",
        "_ready",
        "_resume",
        "_sink",
        "_spooled",
        "_started",
        "body",
        "complete",
        "encoding",
        "facts",
        "length",
        "received",
        "upload",
    )

    def __init__(
        self,
        *,
        mode: BodyMode,
        length: int,
        encoding: bytes,
        content_type: bytes,
        limits: Limits,
        ready: Callable[[], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.body: bytes = b""
        self.length = length
        self.encoding = encoding
        self.facts: RequestFacts | None = None
        self.upload: Body | None = None
        self.received = 0
        self.complete = False
        self._mode = mode
        self._limits = limits
        self._ready = ready
        self._pause = pause
        self._resume = resume
        self._chunks: list[bytes] = []
        self._started = False
        self._spooled = 0
        self._sink: UploadSink | None = None
        self._form = FormReader(content_type) if mode is BodyMode.MULTIPART and not encoding else None
        if mode is not BodyMode.RAW and length > limits.max_body_bytes:
            raise _too_large(limits)

    # --- as it arrives ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is accepted: a raw body may start on its way before it is complete."""
        if self._mode is BodyMode.RAW and not 0 <= self.length <= _RAW_WAIT_BYTES:
            self._start_upload()

    def feed(self, data: bytes) -> None:
        """More bytes. Raises BodyTooLarge, InvalidRequest or Overloaded when they cannot be taken."""
        self.received += len(data)
        if self._mode is not BodyMode.RAW and self.received > self._limits.max_body_bytes:
            raise _too_large(self._limits)
        if self._sink is not None:
            self._sink.upload_data(data)
            return
        self._chunks.append(data)
        if self._mode is BodyMode.MULTIPART and not self._started:
            self._spool(data)

    def finish(self) -> None:
        """The body is complete."""
        self.complete = True
        if self._started:
            if self._sink is not None:
                self._sink.upload_end()
            return
        if self._form is not None:
            self._form.finish()
            self.facts = self._form.facts
        self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self.length = len(self.body)
        self._started = True
        self._ready()

    def release(self) -> None:
        """The exchange is over: give back what was spooled."""
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
        else:
            self._resume()

    def pause(self) -> None:
        """The provider is slower than the caller."""
        if not self.complete:
            self._pause()

    def resume(self) -> None:
        """The provider takes bytes again."""
        if not self.complete:
            self._resume()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _spool(self, data: bytes) -> None:
        form = self._form
        if form is not None:
            form.feed(data)
        room = self.received <= self._limits.spool_bytes and self._limits.spool.take(len(data))
        if room:
            self._spooled += len(data)
        elif form is not None and form.facts is not None:
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
        self._pause()  # until the provider's connection is there to take more
        self._ready()


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than this gateway's limit of {limits.max_body_bytes} bytes")
