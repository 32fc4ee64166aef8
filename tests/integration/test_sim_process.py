"""The sim as its own process: the line it prints, the signals it obeys, the parent it follows, TLS."""

import datetime as dt
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bench.sim"]

pytestmark = pytest.mark.slow


@contextmanager
def sim(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running sim and its URL, read from the one line it prints."""
    with subprocess.Popen([*COMMAND, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("sim listening on http")
            yield process, line.split()[-1]
        finally:
            process.kill()


def chat(url: str, model: str = "m", context: ssl.SSLContext | None = None) -> dict[str, object]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    asked = urllib.request.Request(url + "/v1/chat/completions", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=PATIENCE_S, context=context) as answer:  # noqa: S310
        parsed: dict[str, object] = json.load(answer)
        return parsed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_cleanly(number: signal.Signals) -> None:
    with sim("--tokens", "4", "--behave", "retry-after=1") as (process, url):
        assert chat(url)["usage"]["completion_tokens"] == 4  # type: ignore[index]
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_help_and_mistakes() -> None:
    shown = subprocess.run([*COMMAND, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "x-sim: status=503" in shown.stdout
    for wrong in (["--behave", "stauts=1"], ["--script", "/nowhere.yaml"], ["--tls-key", "x"], ["--tokens", "many"]):
        ended = subprocess.run([*COMMAND, *wrong], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("sim: ")
        assert "Traceback" not in ended.stderr


def test_a_script_is_read(tmp_path: Path) -> None:
    script = tmp_path / "s.yaml"
    script.write_text("rules: [{match: {model: canned}, reply: {body: {hello: there}}}]", encoding="utf-8")
    with sim("--quiet", "--script", str(script)) as (_, url):
        assert chat(url, "canned") == {"hello": "there"}


def test_it_ends_when_its_parent_does() -> None:
    """The parent is a shell's stand-in: it starts the sim, says its pid and is killed."""
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'bench.sim', '--exit-with-parent'], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    """Whether the process runs; an orphan nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _certificate(folder: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, which serves as its own CA and as a client's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(cert), str(secret)


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    with sim("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", cert) as (_, url):
        local = url.replace("127.0.0.1", "localhost")
        assert local.startswith("https://")
        stranger = ssl.create_default_context(cafile=cert)
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|EOF|closed"):
            chat(local, context=stranger)
        friend = ssl.create_default_context(cafile=cert)
        friend.load_cert_chain(cert, key)
        assert chat(local, context=friend)["object"] == "chat.completion"
