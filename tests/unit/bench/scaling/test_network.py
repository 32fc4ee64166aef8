"""Which namespaces and cables are made, and that nothing of them stays; processes and `ip` are played."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.scaling import network
from bench.speed import launch
from bench.speed.launch import CannotRun, Host


class Played:
    """Every command of `ip` with the pid of the namespace it ran in, and the processes that namespaces live by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[tuple[str, str]] = []
        self.alive: list[int] = []
        self.fails: dict[str, str] = {}
        monkeypatch.setattr(launch, "program", lambda name: f"/sbin/{name}")
        monkeypatch.setattr(launch, "started", self._started)
        monkeypatch.setattr(subprocess, "run", self._run)

    @contextmanager
    def _started(self, name: str, words: list[str], **_: object) -> Generator[SimpleNamespace, None, None]:
        assert words[:2] == ["unshare", "--net"]
        pid = 100 + len(self.alive)
        self.alive.append(pid)
        try:
            yield SimpleNamespace(pid=pid, name=name, wait_for=lambda *_: None)
        finally:
            self.alive.remove(pid)

    # "input" and the others are the keywords of subprocess.run
    def _run(self, words: list[str], *, input: str, **_: object) -> SimpleNamespace:  # noqa: A002
        where = words[1].split("/")[2] if words[0] == "nsenter" else "here"
        self.lines += [(where, line) for line in input.splitlines()]
        error = next((told for line, told in self.fails.items() if line in input), "")
        return SimpleNamespace(returncode=1 if error else 0, stderr=error)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def test_hosts_and_this_machine_meet_at_a_bridge(played: Played, tmp_path: Path) -> None:
    with network.network(2, tmp_path) as made:
        assert made.here == Host("198.18.0.1")
        assert [host.address for host in made.hosts] == ["198.18.0.11", "198.18.0.12"]
        assert made.hosts[0].enter == ("nsenter", "--net=/proc/101/ns/net")
        assert played.alive == [100, 101, 102]
    assert ("here", "link add sluice-bench0 type veth peer name here netns 100") in played.lines
    assert ("100", "link add host1 type veth peer name eth0 netns 102") in played.lines
    assert ("102", "address add 198.18.0.12/24 dev eth0") in played.lines
    assert [line for where, line in played.lines if where == "100" and "master bridge" in line] == [
        "link set here master bridge up",
        "link set host0 master bridge up",
        "link set host1 master bridge up",
    ]


def test_nothing_stays_however_the_block_ends(played: Played, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), network.network(2, tmp_path):
        raise KeyboardInterrupt
    assert played.lines[-1] == ("here", "link delete sluice-bench0")
    assert played.alive == []


def test_nothing_stays_of_what_could_not_be_finished(played: Played, tmp_path: Path) -> None:
    played.fails = {"link add host1": "Operation not supported"}
    with pytest.raises(CannotRun, match=r"Operation not supported$"), network.network(2, tmp_path):
        pytest.fail("there is no second host")
    assert played.lines[-1] == ("here", "link delete sluice-bench0")
    assert played.alive == []


def test_another_network_has_another_number_and_other_addresses(played: Played, tmp_path: Path) -> None:
    played.fails = {f"link add sluice-bench{number} ": "RTNETLINK answers: File exists" for number in range(257)}
    with network.network(1, tmp_path) as made:
        assert made.interface == "sluice-bench257"
        assert (made.here.address, made.hosts[0].address) == ("198.19.1.1", "198.19.1.11")
    assert [line for _, line in played.lines if "delete" in line] == ["link delete sluice-bench257"]


def test_when_there_is_no_number_left_that_is_said(played: Played, tmp_path: Path) -> None:
    played.fails = {"link add sluice-bench": "RTNETLINK answers: File exists"}
    with pytest.raises(CannotRun, match="512 networks"), network.network(1, tmp_path):
        pytest.fail("there is none")
    assert not any("delete" in line for _, line in played.lines)  # they are others'
    assert len(f"{network.INTERFACE}{network.MAX_NETWORKS - 1}") <= 15
    assert played.alive == []


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "program", lambda name: None if name == "ip" else name)
    with pytest.raises(CannotRun, match=r"ip is missing; on Debian: apt-get install iproute2$"):
        network.network(1, tmp_path).__enter__()


@pytest.mark.parametrize("hosts", [0, network.MAX_HOSTS + 1])
def test_as_many_hosts_as_there_are_addresses(hosts: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 200 hosts"):
        network.network(hosts, tmp_path).__enter__()


def test_a_process_has_left_once_its_namespace_is_another() -> None:
    assert not network._has_left(os.getpid())
    assert not network._has_left(2**22 + 1)  # there is none
