"""The notary dies at every step and at any moment, with and without the power: what it has signed holds and goes on.

After each death another notary goes on in its place. Then every manifest must be signed by its key and follow from the
one before, every root must be that of the lines in the files, and every line must be covered.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.control.notary import Notary
from gateway.journal import layout, manifestlog
from gateway.journal.line import genesis, leaf_of, line_of, link, parse
from gateway.journal.manifest import Floor, Manifest, fault_after, is_signed, last_line, lines
from gateway.journal.manifest import parse as parse_manifest
from gateway.journal.merkle import root_of
from gateway.journal.signing import load_signer, public_keys, request_rotation, rotation_requested
from tests.fakes.chain_files import ChainFiles
from tests.fakes.killed_steps import How, Kept, Say, lose_power, run
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow
ALL_STEPS = 400  # far more than any scene has
AHEAD = 150  # lines, which is five segments, that a writer may be ahead of what is signed


class State:
    """A state_dir in a test, and what must be true of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.journal, self.keys = root / "journal", root / "signing"

    def notary(self) -> Notary:
        return Notary(self.journal, self.keys)

    def whole(self, journal: Path | None = None) -> list[Manifest]:
        """Every manifest, after everything it says was compared with the files."""
        found = list(lines(journal or self.journal))
        manifests = [parse_manifest(line) for line in found]
        keys = public_keys(self.keys)
        leaves = {chain: self._leaves(chain) for chain in layout.chains(self.journal)}
        for at, (line, manifest) in enumerate(zip(found, manifests, strict=True)):
            assert is_signed(manifest, line, keys[manifest.key])
            assert at == 0 or fault_after(manifests[at - 1], found[at - 1], manifest) == ""
            new = [
                leaf
                for end in manifest.chains
                if end.chain in manifest.first
                for leaf in leaves[end.chain][manifest.first[end.chain] : end.seq + 1]
            ]
            assert (len(new), root_of(new).hex()) == (manifest.leaves, manifest.root)
        return manifests

    def goes_on(self) -> list[Manifest]:
        """Another notary takes over and signs all there is; every manifest."""
        notary = self.notary()
        notary.turn()
        assert notary.problem == ""
        notary.close()
        manifests = self.whole()
        counts = {chain: len(self._leaves(chain)) for chain in layout.chains(self.journal)}
        assert {end.chain: end.seq + 1 for end in manifests[-1].chains} == {c: n for c, n in counts.items() if n}
        current, seeds = load_signer(self.keys).key_id, {path.stem for path in self.keys.glob("*.key")}
        assert current == manifests[-1].key
        assert seeds & {manifest.key for manifest in manifests} == {current}  # keys that were followed are destroyed
        assert len(seeds) <= 2  # one may have died before it was ever named
        assert not rotation_requested(self.keys)
        return manifests

    def _leaves(self, chain: str) -> list[bytes]:
        """Of every whole line of a chain, from the files; each is checked."""
        head, leaves = genesis(layout.node_id(self.journal), chain), list[bytes]()
        for segment in layout.segments(self.journal, chain):
            for line in layout.segment_path(self.journal, chain, segment).read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    leaves.append(leaf_of(parse(line).body))
                    head = link(head, leaves[-1])
                    assert line_of(parse(line).body, head) == line
        return leaves


# --- every step -----------------------------------------------------------------------------------------------------


def first_start(state: State) -> None:
    """Nothing was signed yet, not even a key made."""
    chain = ChainFiles(state.journal, "w0", layout.ensure_node(state.journal))
    chain.append(3)


def something_new(state: State) -> None:
    """Lines in two segments and two chains, after a first manifest."""
    node = layout.ensure_node(state.journal)
    w0, control = ChainFiles(state.journal, "w0", node), ChainFiles(state.journal, "control", node)
    w0.append(2)
    signed(state)
    w0.append(1)
    w0.roll()
    w0.append(2)
    control.append(1)


def change_of_keys(state: State) -> None:
    """Somebody asked for a new key."""
    something_new(state)
    request_rotation(state.keys)


def full_file(state: State) -> None:
    """The newest manifest file is full."""
    something_new(state)
    (path,) = layout.manifest_files(state.journal)
    manifestlog.FILE_BYTES = path.stat().st_size  # type: ignore[misc] # put back by the fixture


def torn_end(state: State) -> None:
    """A death before has left half of a manifest."""
    something_new(state)
    (path,) = layout.manifest_files(state.journal)
    with path.open("ab") as file:
        file.write(path.read_bytes()[:333])


def signed(state: State) -> None:
    notary = state.notary()
    notary.turn()
    notary.close()


SCENES = [first_start, something_new, change_of_keys, full_file, torn_end]


@pytest.fixture(autouse=True)
def _file_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifestlog, "FILE_BYTES", manifestlog.FILE_BYTES)


def work_on(state: State) -> Callable[[Say], None]:
    """Three turns with a line in between, and the end; says each manifest that counts."""

    def work(say: Say) -> None:
        notary = state.notary()
        for _ in range(2):
            notary.turn()
            said(state, say)
        notary.close()
        said(state, say)

    return work


def said(state: State, say: Say) -> None:
    for line in lines(state.journal):
        say(line.decode())


@pytest.mark.parametrize("how", ["before", "after", "within"])
@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_every_step(tmp_path: Path, scene: Callable[[State], None], how: How) -> None:
    template = State(tmp_path / "template")
    scene(template)
    calls = []
    for step in range(1, ALL_STEPS):
        state = State(Path(shutil.copytree(template.root, tmp_path / "state")))
        ended = run(work_on(state), step, how)
        manifests = state.goes_on()
        assert set(ended.said) <= {line.decode() for line in lines(state.journal)}  # what counted counts
        if scene is change_of_keys:
            assert len({manifest.key for manifest in manifests}) == 2
        shutil.rmtree(state.root)
        if not ended.killed:
            break
        calls.append(ended.call)
    assert 8 <= len(calls) < ALL_STEPS - 1
    assert {"pwrite", "fdatasync"} <= set(calls)


@pytest.mark.parametrize("scene", [first_start, something_new, full_file])
def test_the_power_goes_at_every_step(tmp_path: Path, scene: Callable[[State], None]) -> None:
    template = State(tmp_path / "template")
    scene(template)
    dice = random.Random(1)
    for step in range(1, ALL_STEPS):
        state = State(Path(shutil.copytree(template.root, tmp_path / "state")))
        kept = synced_before(state)
        ended = run(work_on(state), step, dice.choice(("before", "after", "within")))
        counted = [line for line in dict.fromkeys(ended.said) if line]
        lose_power(state.journal, kept, ended, dice)
        cut_torn_lines(state)  # as the workers do when they open their chains
        assert set(counted) <= {line.decode() for line in lines(state.journal)}
        state.goes_on()
        shutil.rmtree(state.root)
        if not ended.killed:
            return
    raise AssertionError("it never came to its end")


def synced_before(state: State) -> Kept:
    """What the disk had before the work: the node, the manifests, and the chains as far as they were signed."""
    sizes = {path: path.stat().st_size for path in [state.journal / "node.json", *layout.manifest_files(state.journal)]}
    found = list(lines(state.journal))
    for end in parse_manifest(found[-1]).chains if found else ():
        for segment in layout.segments(state.journal, end.chain):
            path = layout.segment_path(state.journal, end.chain, segment)
            if segment <= end.segment:
                sizes[path] = end.offset if segment == end.segment else path.stat().st_size
    return Kept(sizes)


def cut_torn_lines(state: State) -> None:
    """Cut each chain behind its last whole line; a segment after a cut one goes."""
    for chain in layout.chains(state.journal):
        whole = True
        for segment in layout.segments(state.journal, chain):
            path = layout.segment_path(state.journal, chain, segment)
            content = path.read_bytes() if whole else b""
            end = content.rfind(b"\n") + 1
            whole = whole and end == len(content) and follows(state, chain, segment)
            os.truncate(path, end)


def follows(state: State, chain: str, segment: int) -> bool:
    """Whether the segment after this one, if there is one, begins where this ends."""
    here = layout.segment_path(state.journal, chain, segment).read_bytes()
    after = layout.segment_path(state.journal, chain, segment + 1)
    if not after.exists() or not after.read_bytes():
        return True
    return int(after.read_bytes()[7:].partition(b",")[0]) == int(here.splitlines()[-1][7:].partition(b",")[0]) + 1


# --- floors ---------------------------------------------------------------------------------------------------------


def with_floors(state: State) -> None:
    """Four segments, a manifest file for each."""
    chain = ChainFiles(state.journal, "w0", layout.ensure_node(state.journal))
    manifestlog.FILE_BYTES = 100  # type: ignore[misc] # put back by the fixture
    for _ in range(4):
        chain.append(2)
        signed(state)
        chain.roll()


def raising_floors(state: State) -> Callable[[Say], None]:
    def work(say: Say) -> None:
        notary = state.notary()
        notary.turn()
        line = layout.segment_path(state.journal, "w0", 2).read_bytes().splitlines()[-1]
        notary.raise_floor([Floor("w0", 3, 4, line[-66:-2].decode())])
        notary.turn()
        say(str(notary.floors["w0"].segment))
        notary.close()

    return work


@pytest.mark.parametrize("how", ["before", "after", "within"])
def test_killed_while_manifests_are_dropped(tmp_path: Path, how: How) -> None:
    template = State(tmp_path / "template")
    with_floors(template)
    calls = []
    for step in range(1, ALL_STEPS):
        state = State(Path(shutil.copytree(template.root, tmp_path / "state")))
        ended = run(raising_floors(state), step, how)
        manifests = state.goes_on()
        floored = [manifest for manifest in manifests if manifest.manifest_floor is not None]
        if floored:  # as soon as it is signed, and only then, may anything be gone; and in the end it is
            assert floored[-1].manifest_floor is not None
            assert manifests[0].n == floored[-1].manifest_floor.n > 0
        else:
            assert (manifests[0].n, ended.said) == (0, [])
        shutil.rmtree(state.root)
        if not ended.killed:
            break
        calls.append(ended.call)
    assert "unlink" in calls


# --- any moment -----------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_while_workers_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifestlog, "FILE_BYTES", 20_000)
    state = State(tmp_path / "state")
    node = layout.ensure_node(state.journal)
    dice = random.Random(7)
    living = [forked(partial(write_on, state, chain, node)) for chain in ("w0", "w1")]
    try:
        reached = dict[str, int]()
        for round_ in range(40):
            living.append(forked(partial(turn_on, state)))
            begun = newest(state)
            if round_ % 4 == 0:
                request_rotation(state.keys)
            if round_ % 2:
                until(partial(has_signed, state, begun + dice.randint(1, 3)))
            time.sleep(dice.uniform(0.0, 0.02))
            killed(living.pop())
            reached = not_behind(reached, state)
    finally:
        for pid in living:
            killed(pid)
    cut_torn_lines(state)
    manifests = state.goes_on()
    assert len(manifests) > 20
    assert len({manifest.key for manifest in manifests}) > 3
    assert {end.chain for end in manifests[-1].chains} == {"w0", "w1"}


def write_on(state: State, name: str, node: str) -> None:
    """Append lines and begin segments, for as long as nobody kills it.

    Never far ahead of what is signed: a disk that takes 15 ms for a sync would never get through these small segments.
    """
    chain = ChainFiles(state.journal, name, node)
    while True:
        chain.append(3)
        if len(chain.lines) % 30 == 0:
            chain.roll(prepared=True)
            until(partial(reaches, state, name, len(chain.lines) - AHEAD))
        time.sleep(0.002)


def reaches(state: State, chain: str, count: int) -> bool:
    """Whether so many lines of a chain are signed."""
    line = last_line(state.journal)
    end = None if line is None else parse_manifest(line).end_of(chain)
    return (0 if end is None else end.seq + 1) >= count


def turn_on(state: State) -> None:
    """Sign for as long as nobody kills it; nothing may keep it from that, and what does is told."""
    notary = state.notary()
    while not notary.problem:
        notary.turn()
    os.write(2, f"{notary.problem}\n".encode())


def newest(state: State) -> int:
    """The number of the newest manifest, -1 for none."""
    line = last_line(state.journal)
    return -1 if line is None else parse_manifest(line).n


def has_signed(state: State, n: int) -> bool:
    return newest(state) >= n


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, "nothing is signed"
        time.sleep(0.001)


def not_behind(reached: dict[str, int], state: State) -> dict[str, int]:
    """The numbers that the newest whole manifest states, which are never lower than before."""
    found = list(lines(state.journal))
    now = {end.chain: end.seq for end in parse_manifest(found[-1]).chains} if found else {}
    assert all(now[chain] >= seq for chain, seq in reached.items())
    return now


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(3)
    return pid


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it had ended by itself"
