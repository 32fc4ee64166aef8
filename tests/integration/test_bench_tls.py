"""The bench's section of TLS in small, with the real programs: certificates are verified, and answers are right."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.speed import __main__ as speed
from bench.speed import launch, memory, native, nginx, procfs, report, targets, tls, workload
from bench.speed.certificates import Certificates
from bench.speed.nginx import Ways
from bench.speed.report import Result
from bench.speed.sections import CLIENT_CORE, TARGET_CORE, Settings
from bench.speed.targets import Place
from bench.speed.verdict import Status

pytestmark = pytest.mark.slow

SMALL = Settings(
    repeats=1,
    seconds=0.4,
    warmup=0.2,
    sections=("tls",),
    targets=("nginx", "limited"),
    connections=4,
    hold=50,
    hold_seconds=1.5,
    again=0.0,
)


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    native.build()


def test_the_section_runs_and_tells_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE_CONNECTIONS", 8)
    run = speed.Run(SMALL, tmp_path, {"defaults": {"timeouts": {"connect_s": 30}}})  # other tests may have the cores
    run.measure()
    result = Result({"date": "2026-01-02"}, SMALL, run.samples, [], tls_memory=run.tls_memory)
    assert [(one.section, one.target) for one in run.samples] == [
        (section, target) for section in (tls.KEPT, tls.ANEW) for target in ("nginx", "limited")
    ]
    assert all(one.load.ok and not one.load.errors for one in run.samples)
    assert [(one.target, one.streams, one.errors) for one in run.tls_memory] == [("nginx", 50, {}), ("limited", 50, {})]
    (goal,) = (goal for goal in result.goals() if "TLS" in goal.name)
    assert goal.status is not Status.NOT_MEASURED
    assert "## TLS on both sides" in report.markdown(result)


@pytest.mark.parametrize("name", ["nginx", "limited"])
def test_a_provider_of_another_authority_is_not_believed(name: str, tmp_path: Path) -> None:
    """By the target, whose answer is then 502: all of a run's certificates are verified."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    descriptors = procfs.raise_descriptor_limit()
    (target,) = targets.make((name,), {})
    with native.upstream(CLIENT_CORE, tmp_path / "upstream.log") as port:
        stranger = Ways(port, port, descriptors, callers=Certificates.make(theirs))
        with nginx.started("stranger", stranger, theirs, CLIENT_CORE) as behind:
            made = Certificates.make(ours)
            place = Place(TARGET_CORE, behind.port, ours / "target", descriptors, certificates=made)
            with target.running(place) as running:
                callers = Ways(running.port, running.stream_port, descriptors, upstream=made)
                with nginx.started("callers", callers, ours / "callers", CLIENT_CORE) as before:
                    assert status(before.port, running.headers) == 502


def status(port: int, headers: tuple[str, ...]) -> int:
    """Of a plain request."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{native.CHAT_PATH}", workload.plain().body())
    for name, _, value in (header.partition(": ") for header in ("content-type: application/json", *headers)):
        request.add_header(name, value)
    try:
        with launch.WITHOUT_PROXY.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
