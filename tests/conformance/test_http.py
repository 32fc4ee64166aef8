"""Every request of corpus/http, sent to a running gateway: refused and never forwarded, or forwarded once and as sent.

One gateway with one worker serves them all, many at a time, each row whole, split at random, and byte by byte when it
is short. What holds for every row: no 500, no silence (two seconds; six where a time limit is what is tested), an
answer in the caller's dialect with a request id, and nothing behind it. At the end the worker is the one that started,
holds no descriptor more than before, and serves.
"""

import asyncio
import contextlib
import gzip
import hashlib
import json
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml
import zstandard

from tests.fakes.gateway_node import KEY, GatewayNode, running, until
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

CORPUS = Path(__file__).parents[1] / "corpus" / "http"
CONFIG: dict[str, Any] = {
    "listen": {"header_timeout_s": 3, "body_timeout_s": 3, "keepalive_s": 15},
    "max_body_bytes": "1MiB",
    "spool_bytes": "64KiB",
    "log": {"level": "info", "requests": "none"},
    "providers": {"sim": {"idle_s": 1}, "raw": {"idle_s": 1}},
}
AT_ONCE = 24
PROMPT_S, SLOW_S = 10.0, 40.0  # less than a connection is kept that nobody closes; more than it takes to give one up
SHORT_BYTES = 450  # rows up to here are sent byte by byte too
CHAT = '{"model":"sim-%{row}","messages":[{"role":"user","content":"hi"}]}'
CHAT_BYTES = len(CHAT) - len("%{row}") + 5
LINE = "POST /v1/chat/completions HTTP/1.1"
FORM_LINE = "POST /v1/audio/transcriptions HTTP/1.1"
Row = dict[str, Any]
Way = Callable[[bytes], list[bytes]]


# --- rows and their bytes -------------------------------------------------------------------------------------------


def rows_of(name: str) -> list[Row]:
    return [{**row, "name": f"{name}: {row['name']}"} for row in yaml.safe_load((CORPUS / f"{name}.yaml").read_text())]


def pairs() -> Iterator[Row]:
    table = yaml.safe_load((CORPUS / "pairs.yaml").read_text())
    for one in product(table["content-length"], table["transfer-encoding"]):
        for both in (one, one[::-1]):
            yield {"name": " + ".join(both), "headers": list(both)}


REFUSED_FILES = ("lengths", "heads", "targets", "json", "codings", "forms", "protocols", "slow")
REFUSED: list[Row] = [row for name in REFUSED_FILES for row in rows_of(name)] + list(pairs())
ACCEPTED: list[Row] = rows_of("accepted")
for number, a_row in enumerate(REFUSED + ACCEPTED):
    a_row["number"] = number

_PLACE = re.compile(r'%\{(?:"((?:[^"]|"")*)"\*(\d+)|([0-9a-f ]+)\*(\d+)|([^}"]*))\}')


def expand(text: str, row_id: str) -> bytes:
    """A text with its places filled in."""
    names = {
        "": b"",
        "crlf": b"\r\n",
        "row": row_id.encode(),
        "key": KEY.encode(),
        "chat.length": b"%d" % CHAT_BYTES,
        "chat.hex": b"%x" % CHAT_BYTES,
    }
    out, at = bytearray(), 0
    for place in _PLACE.finditer(text):
        out += text[at : place.start()].encode()
        at = place.end()
        repeated, times, hexed, hexed_times, name = place.groups()
        if times:
            out += expand(repeated.replace('""', '"'), row_id) * int(times)
        elif hexed_times:
            out += bytes.fromhex(hexed) * int(hexed_times)
        elif name == "chat":
            out += expand(CHAT, row_id)
        else:
            out += names[name] if name in names else bytes.fromhex(name)
    return bytes(out + text[at:].encode())


def plain_body(row: Row, row_id: str) -> bytes:
    """The body before it is encoded or framed."""
    if "form" in row:
        return expand(row["form"].replace("\n", "%{crlf}"), row_id)
    return expand(row.get("body", CHAT), row_id)


def bytes_of(row: Row, row_id: str) -> bytes:
    """What a row sends."""
    if "send" in row:
        return expand(row["send"].replace("\n", "%{crlf}"), row_id)
    body = plain_body(row, row_id)
    if row.get("coding") == "gzip":
        body = gzip.compress(body, mtime=0)
    elif row.get("coding") == "zstd":
        body = zstandard.compress(body)
    body = body[: len(body) - row.get("cut", 0)]
    if "chunked" in row:
        body = expand(row["chunked"], row_id)
    given = row.get("headers", [])
    replaced = {line.partition(":")[0].strip().lower() for line in given} | {n.lower() for n in row.get("without", [])}
    kind = "multipart/form-data; boundary=B" if "form" in row else "application/json"
    lines = ["Host: gateway.test", "Authorization: Bearer %{key}", f"Content-Type: {kind}"]
    if "coding" in row:
        lines.append(f"Content-Encoding: {row['coding']}")
    lines.append("Transfer-Encoding: chunked" if "chunked" in row else f"Content-Length: {len(body)}")
    kept = [line for line in lines if line.partition(":")[0].lower() not in replaced]
    line = row.get("line", FORM_LINE if "form" in row else LINE)
    return expand("%{crlf}".join([line, *kept, *given]), row_id) + b"\r\n\r\n" + body


# --- ways to send ---------------------------------------------------------------------------------------------------


def whole(raw: bytes) -> list[bytes]:
    return [raw]


def split(raw: bytes) -> list[bytes]:
    dice = random.Random(len(raw) + sum(raw[:200]))
    cuts = sorted(dice.sample(range(len(raw) + 1), min(dice.randint(1, 6), len(raw))))
    return [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]


def bytewise(raw: bytes) -> list[bytes]:
    return [raw[at : at + 1] for at in range(len(raw))]


WAYS: dict[str, Way] = {"w": whole, "s": split, "b": bytewise}


def pieces_of(row: Row, row_id: str) -> list[bytes]:
    """A row's bytes as they are sent; the last letter of its id says how."""
    raw = bytes_of(row, row_id)
    if "drip" not in row:
        return WAYS[row_id[-1]](raw)
    step = -(-len(raw) // row["drip"][0])
    return [raw[at : at + step] for at in range(0, len(raw), step)]


@dataclass
class Seen:
    """What a caller saw: the answers, what followed them, and how it ended."""

    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    rest: bytes = b""
    trouble: str = ""


class Wire:
    """One connection, read and written apart: what was answered is seen even when nobody takes the rest."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.unread = b""

    async def line(self, end: bytes) -> bytes:
        """Up to and with `end`; b"" at the end of the connection."""
        while end not in self.unread:
            if not await self.more():
                return b""
        found, _, self.unread = self.unread.partition(end)
        return found + end

    async def exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            assert await self.more(), f"cut: {self.unread!r}"
        found, self.unread = self.unread[:size], self.unread[size:]
        return found

    async def rest(self) -> bytes:
        while await self.more():
            pass
        return self.unread

    async def more(self) -> bytes:
        data = await self.loop.sock_recv(self.sock, 2**16)
        self.unread += data
        return data

    async def send(self, row: Row, pieces: Sequence[bytes]) -> None:
        pause_s = row.get("drip", [0, 0.0])[1]
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                await self.loop.sock_sendall(self.sock, piece)
                await asyncio.sleep(pause_s)
            if row.get("then") == "end":
                self.end()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)


async def exchange(port: int, row: Row, pieces: Sequence[bytes], wanted: int) -> Seen:
    """Send a row, read so many answers, leave, and read what else there is."""
    seen = Seen()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock)
        sending = asyncio.create_task(wire.send(row, pieces))
        head_only = row.get("line", "").startswith("HEAD ")
        try:
            async with asyncio.timeout(SLOW_S if row.get("slow") else PROMPT_S):
                while len(seen.answers) < wanted and (answer := await _answer(wire, head_only=head_only)):
                    seen.answers.append(answer)
                if seen.answers:
                    await sending
                    wire.end()
                seen.rest = await wire.rest()
        except TimeoutError:
            seen.trouble = f"no end after {len(seen.answers)} answers"
        except ConnectionResetError:
            seen.trouble = "reset" if len(seen.answers) < wanted else ""
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return seen


async def _answer(wire: Wire, *, head_only: bool) -> tuple[int, dict[str, str], bytes] | None:
    """The next answer that is not interim; None at the end of the connection."""
    head = (await wire.line(b"\r\n\r\n")).decode("latin-1")
    if not head:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    status = int(first.split(" ")[1])
    if status < 200:
        return await _answer(wire, head_only=head_only)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if head_only:
        return status, headers, b""
    if "content-length" in headers:
        return status, headers, await wire.exactly(int(headers["content-length"]))
    if "transfer-encoding" not in headers:
        body, wire.unread = await wire.rest(), b""
        return status, headers, body
    body = b""
    while size := int(await wire.line(b"\r\n"), 16):
        body += (await wire.exactly(size + 2))[:-2]
    await wire.exactly(2)
    return status, headers, body


# --- verdicts -------------------------------------------------------------------------------------------------------


def complaint_of_refusal(row: Row, seen: Seen) -> str:
    expect = row.get("expect", [400])
    if seen.trouble:
        return seen.trouble
    if not seen.answers:
        return "" if "close" in expect else "closed without an answer"
    status, headers, body = seen.answers[0]
    if status not in expect:
        return f"answered {status}: {body[:300]!r}"
    if seen.rest:
        return f"behind the answer: {seen.rest[:300]!r}"
    return "" if status == 200 else complaint_of_error(row, headers, body)


def complaint_of_error(row: Row, headers: dict[str, str], body: bytes) -> str:
    request_id = headers.get("x-request-id", "")
    if headers.get("content-type") != "application/json" or not request_id.startswith("req_"):
        return f"headers {headers}"
    said = json.loads(body)
    if row.get("dialect") == "anthropic":
        fits = said["type"] == "error" and said["request_id"] == request_id and said["error"]["message"]
        return "" if fits and "code" not in said["error"] else f"not Anthropic's shape: {said}"
    error = said["error"]
    if set(error) != {"message", "type", "param", "code"} or not error["message"]:
        return f"not OpenAI's shape: {said}"
    return "" if row.get("code", error["code"]) == error["code"] else f"code {error['code']}"


def complaint_of_acceptance(row: Row, row_id: str, seen: Seen, arrived: list[dict[str, Any]]) -> str:
    statuses = [status for status, _, _ in seen.answers]
    rest = b"" if "may" in row and seen.rest.startswith(b"HTTP/1.1 %d " % row["may"]) else seen.rest
    if seen.trouble or rest or statuses != row.get("answers", [200]):
        return f"{statuses} {seen.trouble} {seen.rest[:200]!r} {[body[:300] for _, _, body in seen.answers]}"
    if len(arrived) != row.get("forwarded", 1):
        return f"arrived {len(arrived)} times"
    said = expand(row["arrives"], row_id) if "arrives" in row else plain_body(row, row_id)
    digest = hashlib.sha256(said.replace(b"sim-" + row_id.encode(), row_id.encode())).hexdigest()
    wrong = [entry for entry in arrived if entry["body_sha256"] != digest]
    return f"another body arrived: {wrong}" if wrong else ""


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One gateway and what was seen of every row on it."""

    node: GatewayNode
    workers: list[int]
    descriptors: int
    refusals: dict[str, list[str]] = field(default_factory=dict)
    forwarded: list[Any] = field(default_factory=list)
    acceptances: dict[str, list[str]] = field(default_factory=dict)
    took_s: float = 0.0


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def ways_for(row: Row) -> list[str]:
    if row.get("slow"):
        return ["w"]
    short = len(bytes_of(row, "r000w")) <= SHORT_BYTES
    return ["w", "s", "b"] if short else ["w", "s"]


async def send_all(port: int, rows: Sequence[Row], ways: str) -> list[tuple[Row, str, Seen]]:
    """Every row in these ways, many at a time; the slow ones wait beside the others."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(row: Row, row_id: str, pieces: list[bytes]) -> tuple[Row, str, Seen]:
        async with contextlib.nullcontext() if row.get("slow") else places:
            return row, row_id, await exchange(port, row, pieces, len(row.get("answers", [200])))

    named = [(row, f"r{row['number']:03}{way}") for row in rows for way in ways_for(row) if way in ways]
    work = [(row, row_id, pieces_of(row, row_id)) for row, row_id in named]  # all made before the clocks run
    return await asyncio.gather(*[one(*each) for each in work])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """All refused rows, then all accepted ones."""
    with running(CONFIG) as node, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert node.chat().status == 200
        node.sim.reset()
        workers = node.workers()
        seen = Run(node, workers, descriptors(workers[0]))
        started = time.monotonic()
        for row, row_id, refusal in runner.run(send_all(node.port, REFUSED, "wsb")):
            if complaint := complaint_of_refusal(row, refusal):
                seen.refusals.setdefault(row["name"], []).append(f"{row_id}: {complaint}")
        seen.forwarded = node.sim.requests()
        for way in WAYS:  # one way at a time: the provider remembers 200 requests
            node.sim.reset()
            results = runner.run(send_all(node.port, ACCEPTED, way))
            entries = node.sim.requests()
            for row, row_id, answer in results:
                arrived = [entry for entry in entries if row_id in f"{entry['model']} {entry['path']}"]
                if complaint := complaint_of_acceptance(row, row_id, answer, arrived):
                    seen.acceptances.setdefault(row["name"], []).append(f"{row_id}: {complaint}")
        seen.took_s = time.monotonic() - started
        yield seen


def names(rows: Sequence[Row]) -> list[Any]:
    return [pytest.param(row["name"], id=row["name"]) for row in rows]


@pytest.mark.parametrize("name", names(REFUSED))
def test_refused(run: Run, name: str) -> None:
    assert run.refusals.get(name, []) == []


def test_nothing_refused_was_forwarded(run: Run) -> None:
    assert [(entry["model"], entry["path"]) for entry in run.forwarded] == []


@pytest.mark.parametrize("name", names(ACCEPTED))
def test_accepted(run: Run, name: str) -> None:
    assert run.acceptances.get(name, []) == []


def test_the_worker_is_unharmed(run: Run) -> None:
    node, pid = run.node, run.workers[0]
    assert node.workers() == run.workers
    assert node.chat().status == 200
    until(lambda: descriptors(pid) <= run.descriptors, f"{run.descriptors} descriptors, not {descriptors(pid)}")
    assert run.took_s < 2 * PATIENCE_S


def test_the_corpus_has_not_shrunk_and_its_names_tell_rows_apart() -> None:
    assert len(REFUSED) - len(list(pairs())) >= 480
    assert len(ACCEPTED) >= 70
    assert len({row["name"] for row in REFUSED + ACCEPTED}) == len(REFUSED + ACCEPTED)
