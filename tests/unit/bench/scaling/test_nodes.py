"""Nodes share a load and a store, and are judged together; gateways, loads and the network are played."""

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bench.limits.callers import Load
from bench.limits.evidence import Admitted, Seen
from bench.scaling import nodes
from bench.scaling.network import Network
from bench.scaling.nodes import Sharing
from bench.scaling.stand import COST, RATE, Stand
from bench.speed import native
from bench.speed.histogram import Histogram
from bench.speed.launch import CannotRun, Host
from bench.speed.native import LoadResult
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Settings
from bench.speed.targets import Place, Running, Target
from gateway.config.load import load
from tests.unit.bench_speed.samples import again

SETTINGS = Settings(repeats=2, seconds=1.0, warmup=0.0)
HOSTS = [Host(f"198.18.0.{11 + n}", ("nsenter", str(n))) for n in range(4)]
NODE_US, STORE_US, CALLS = 30_000, 8_000, 4


def loaded(words: Sequence[str], errors: Mapping[str, int]) -> LoadResult:
    ok = int(words[words.index("--requests") + 1]) if "--requests" in words else 10
    return LoadResult(2.0, ok, ok / 2, 0, 0, 0, dict(errors), Histogram(), Histogram(), Histogram(), Histogram())


def seen(admitted: int) -> Seen:
    """Admissions within a second, and a refusal at its end."""
    moments = [(10 + n / admitted, 10.001 + n / admitted) for n in range(admitted)]
    rows = [Admitted(sent_s, begun_s, begun_s, 5) for sent_s, begun_s in moments]
    return Seen(admitted=rows, refused=1, last_refusal_sent_s=11.0, asked_s=10.0)


class Played:
    """What was started and brought. A reading of a node finds it has spent more, and so it is with the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.places: list[Place] = []
        self.brought: list[tuple[str, list[str]]] = []
        self.loads: list[Load] = []
        self.errors: dict[str, int] = {}
        self.admitted = 199
        self._spent: dict[int, int] = {}
        self._calls = 0
        self._lock = threading.Lock()
        self.stand = Stand(9000, folder, SETTINGS, 20_000, Progress(1), again())
        monkeypatch.setattr(Target, "running", self._running_of())
        monkeypatch.setattr(native, "upstream", self._upstream)
        monkeypatch.setattr(native, "load", self._load)
        monkeypatch.setattr(nodes, "network", self._network)
        monkeypatch.setattr(nodes, "redis_server", self._store)
        monkeypatch.setattr(nodes, "hammering", self._hammering)
        monkeypatch.setattr(Progress, "step", lambda *_: None)
        monkeypatch.setattr(Reading, "of", self._reading)

    @contextmanager
    def _network(self, hosts: int, _: Path) -> Generator[Network, None, None]:
        yield Network(Host("198.18.0.1"), HOSTS[:hosts], "sluice-bench0")

    def _running_of(self) -> Callable[[Target, Place], AbstractContextManager[Running]]:
        @contextmanager
        def running(target: Target, place: Place) -> Generator[Running, None, None]:
            self.places.append(place)
            number = len(self.places)
            yield Running(target.name, 8000 + number, 0, pid=number, address=place.host.address)

        return running

    @contextmanager
    def _upstream(self, _core: int, _log: Path, address: str) -> Generator[int, None, None]:
        assert address == "198.18.0.1"
        yield 9100

    @contextmanager
    def _store(self, _core: int, host: Host) -> Generator[SimpleNamespace, None, None]:
        yield SimpleNamespace(url=f"redis://{host.address}:1/0", pid=0, calls=self._called)

    def _called(self) -> int:
        self._calls += CALLS
        return self._calls

    def _load(self, port: int, words: list[str], *, address: str, **_: object) -> LoadResult:
        with self._lock:
            self.brought.append((f"{address}:{port}", words))
        return loaded(words, self.errors)

    @contextmanager
    def _hammering(self, brought: Load, _seconds: float) -> Generator[SimpleNamespace, None, None]:
        self.loads.append(brought)
        yield SimpleNamespace(seen=seen(self.admitted))

    def _reading(self, pid: int) -> Reading:
        self._spent[pid] = self._spent.get(pid, 0) + (NODE_US if pid else STORE_US)
        return Reading({pid: Process(pid, self._spent[pid], 0, 0)})


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Played:
    return Played(monkeypatch, tmp_path)


def test_each_node_has_a_host_and_the_store_another(played: Played) -> None:
    found = list(nodes.nodes(played.stand))
    assert [point.at for point in found] == ["1", "1", "2", "2", "3", "3"]
    assert [place.host for place in played.places] == [HOSTS[1], *HOSTS[1:3], *HOSTS[1:4]]
    assert {place.upstream_address for place in played.places} == {"198.18.0.1"}
    assert {place.upstream_port for place in played.places} == {9100}
    assert {place.core for place in played.places} == {0}


def test_nodes_share_a_number_of_requests_and_then_a_rate(played: Played) -> None:
    list(nodes.nodes(played.stand))
    numbers = [int(words[1]) for _, words in played.brought if words[0] == "--requests"]
    rates = [int(words[1]) for _, words in played.brought if words[0] == "--rate"]
    assert sorted(set(numbers)) == [1333, 2000, 4000]
    assert sorted(set(rates)) == [667, 1000, 2000]
    assert {address for address, _ in played.brought[-3:]} == {
        f"{h.address}:{n}" for h, n in zip(HOSTS[1:], (8004, 8005, 8006), strict=True)
    }


def test_what_a_request_costs_nodes_and_store(played: Played) -> None:
    last = list(nodes.nodes(played.stand))[-1].figures
    assert last[COST] == pytest.approx(3 * NODE_US / 3999)
    assert last["µs CPU of the store a request"] == pytest.approx(STORE_US / 3999)
    assert last["calls of the store a request"] == pytest.approx(CALLS / 3999)
    assert last[RATE] == pytest.approx(3999 / 2)
    assert last[f"{RATE} of a node"] == pytest.approx(1333 / 2)


def test_all_nodes_together_keep_to_a_quota(played: Played) -> None:
    list(nodes.nodes(played.stand))
    assert [len(brought.ports) for brought in played.loads] == [1, 2, 3]
    assert set(played.loads[-1].addresses.values()) == {host.address for host in HOSTS[1:]}
    assert all(finding.holds for finding in played.stand.findings)
    assert "3 nodes: admitted at most" in [finding.what for finding in played.stand.findings]


def test_nodes_that_admit_more_than_their_quota_are_found_out(played: Played) -> None:
    played.admitted = 203  # 100 at once, and 100 a second
    list(nodes.nodes(played.stand))
    assert [f.what for f in played.stand.findings if not f.holds] == [
        "1 node: admitted at most",
        "2 nodes: admitted at most",
        "3 nodes: admitted at most",
    ]


def test_where_there_is_no_network_that_is_said(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> Network:
        raise CannotRun("ip is missing")

    monkeypatch.setattr(nodes, "network", contextmanager(cannot))  # type: ignore[arg-type] # it never yields
    assert list(nodes.nodes(played.stand)) == []
    assert played.stand.remarks == ["nodes were not measured: ip is missing"]


def test_a_node_whose_answers_are_wrong_ends_the_part(played: Played) -> None:
    played.errors = {"status": 3}
    with pytest.raises(CannotRun, match=r"nodes: wrong answers: \{'status': 3\}"):
        list(nodes.nodes(played.stand))


def test_a_load_that_fails_ends_the_part(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> LoadResult:
        raise CannotRun("nobody listens")

    monkeypatch.setattr(native, "load", fails)
    with pytest.raises(CannotRun, match="nobody listens"):
        list(nodes.nodes(played.stand))


def test_the_config_of_a_node_is_one_that_it_takes(tmp_path: Path) -> None:
    place = Place(0, 9100, tmp_path, 1000, HOSTS[1], "198.18.0.1")
    path = tmp_path / "gateway.yaml"
    target = Sharing(store="redis://198.18.0.11:6379/0", nodes=3)
    path.write_text(yaml.safe_dump(target.config(place, 8000, "gw-" + "s" * 43)))
    config = load(path)
    assert config.listen.host == "198.18.0.12"
    assert config.limits.nodes == 3
    assert config.limits.rules[0].match.key == "quota"
    assert [key.id for key in config.keys] == ["bench", "quota"]
