"""A token is kept only if it is about this manifest, answers this question, and is signed by whom the config names."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor import rfc3161 as module
from gateway.journal.anchor.base import AnchorFailed
from gateway.journal.anchor.rfc3161 import TimestampAnchor
from tests.fakes.manifest_heads import NODE, head
from tests.fakes.timestamp_authority import Stamper


class Scene:
    """An anchor whose authority is asked without a network."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stamper, self.stranger = Stamper(folder / "tsa"), Stamper(folder / "stranger")
        self.answer: Callable[[bytes], bytes] = self.stamper.stamp
        self.asked = 0
        self.path = folder / "tokens"
        self.token = self.path / NODE / "7.tsr"
        monkeypatch.setattr(TimestampAnchor, "_ask", lambda _, query: self._answered(query))

    def anchor(self, ca_file: str | None = None) -> TimestampAnchor:
        chosen = self.stamper.ca_file if ca_file is None else ca_file
        return TimestampAnchor(AnchorSettings(kind="rfc3161", url="http://tsa", path=str(self.path), ca_file=chosen))

    def _answered(self, query: bytes) -> bytes:
        self.asked += 1
        return self.answer(query)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_a_token_is_kept_beside_its_manifest_and_openssl_agrees(scene: Scene) -> None:
    where = scene.anchor().put(head(), 7, NODE)
    assert where.startswith(f"{scene.token} (20")
    line = scene.token.with_suffix(".json")
    assert line.read_bytes() == head()
    done = subprocess.run(
        ["openssl", "ts", "-verify", "-data", line, "-in", scene.token, "-CAfile", scene.stamper.ca_file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert scene.anchor().check(head(), 7, NODE) == where


def test_what_was_stamped_is_not_stamped_again(scene: Scene) -> None:
    first = scene.anchor().put(head(), 7, NODE)
    assert scene.anchor().put(head(), 7, NODE) == first
    assert scene.asked == 1


def test_another_manifest_of_that_number_is_told_and_kept_out(scene: Scene) -> None:
    scene.anchor().put(head(), 7, NODE)
    before = scene.token.read_bytes()
    for call in (scene.anchor().put, scene.anchor().check):
        with pytest.raises(AnchorFailed, match=r"7\.tsr: .* is something else than this manifest"):
            call(head(at_us=1), 7, NODE)
    assert scene.token.read_bytes() == before


def test_an_answer_to_another_question_is_not_kept(scene: Scene) -> None:
    answers = list[bytes]()

    def replay(query: bytes) -> bytes:
        answers.append(scene.stamper.stamp(query))
        return answers[0]

    scene.answer = replay
    scene.anchor().put(head(), 7, NODE)
    for ca_file in (None, ""):
        with pytest.raises(AnchorFailed, match="is something else"):
            scene.anchor(ca_file).put(head(8), 8, NODE)  # about another manifest
        scene.token.unlink(missing_ok=True)
        with pytest.raises(AnchorFailed, match="is something else"):
            scene.anchor(ca_file).put(head(), 7, NODE)  # about this one, and an old answer
        assert not scene.token.exists()


def test_a_stranger_is_not_believed(scene: Scene) -> None:
    scene.answer = scene.stranger.stamp
    with pytest.raises(AnchorFailed, match="its token does not hold against"):
        scene.anchor().put(head(), 7, NODE)
    assert not scene.path.exists()
    assert scene.anchor("").put(head(), 7, NODE)  # nobody is named: whoever checks it has to know
    with pytest.raises(AnchorFailed, match=r"7\.tsr: .* does not hold against"):
        scene.anchor().check(head(), 7, NODE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"", "it answers with no token"),
        (lambda _: b"<html>", "it answers with no token"),
        (lambda token: token[:-1], "it answers with no token"),
        (lambda token: token[:-1] + bytes([token[-1] ^ 1]), "does not hold against"),
    ],
)
def test_what_is_no_token_is_not_kept(scene: Scene, change: Callable[[bytes], bytes], said: str) -> None:
    scene.answer = lambda query: change(scene.stamper.stamp(query))
    with pytest.raises(AnchorFailed, match=said):
        scene.anchor().put(head(), 7, NODE)
    assert not scene.path.exists()


def test_a_refusal_says_why(scene: Scene) -> None:
    scene.answer = lambda _: scene.stamper.stamp(b"rubbish")
    with pytest.raises(AnchorFailed, match="http://tsa: it refuses: Bad request format"):
        scene.anchor().put(head(), 7, NODE)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_cannot_be_used(scene: Scene, tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "other.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(AnchorFailed, match=r"ca_file .*other\.pem holds no certificates that can be read"):
        scene.anchor(str(ca_file)).put(head(), 7, NODE)


def test_a_token_that_cannot_be_kept_or_read(scene: Scene) -> None:
    with pytest.raises(AnchorFailed, match=r"7\.tsr: cannot be read: No such file"):
        scene.anchor().check(head(), 7, NODE)
    scene.path.write_text("a file")
    with pytest.raises(AnchorFailed, match=r"7\.tsr: a token cannot be kept: "):
        scene.anchor().put(head(), 7, NODE)


def test_without_the_library_it_says_what_to_install(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(AnchorFailed, match=r"rfc3161_client cannot be imported .*sluice-gateway\[timestamp\]"):
        scene.anchor().put(head(), 7, NODE)


# --- the answer's body ----------------------------------------------------------------------------------------------


class Body:
    """An HTTP answer that comes in pieces, each after a while."""

    def __init__(self, pieces: list[bytes], clock: list[float], each_s: float) -> None:
        self._pieces, self._clock, self._each_s = pieces, clock, each_s

    def read1(self, _: int) -> bytes:
        self._clock[0] += self._each_s
        return self._pieces.pop(0) if self._pieces else b""


@pytest.mark.parametrize(
    ("pieces", "each_s", "said"),
    [
        ([b"x" * 4096] * 16, 0, ""),
        ([b"x" * 4096] * 17, 0, "larger than 65536 bytes"),
        ([b"x"] * 14, 2, ""),
        ([b"x"] * 16, 2, "takes longer than 30 s"),
    ],
)
def test_an_answer_is_bounded_in_bytes_and_time(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], each_s: float, said: str
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    body = Body(list(pieces), clock, each_s)
    if said:
        with pytest.raises(OSError, match=said):
            module._bounded(body)  # type: ignore[arg-type]
    else:
        assert module._bounded(body) == b"".join(pieces)  # type: ignore[arg-type]
