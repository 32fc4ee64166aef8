"""`gateway audit` as operators and auditors use it: on a running node, on a copy, and on a copy that was changed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.journal import layout
from tests.fakes.gateway_node import GatewayNode, running, until
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

Done = subprocess.CompletedProcess[str]


def audit(*words: object, given: str | None = None) -> Done:
    """Run the command; what it says on a pipe has no progress bar in it."""
    command = [sys.executable, "-m", "gateway", "audit", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5 * PATIENCE_S, input=given)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def signed(node: GatewayNode) -> None:
    """Wait until control has signed everything there is."""

    def all_signed() -> bool | None:
        done = audit("verify", "--json", "--config", node.config_path)
        chains = json.loads(done.stdout)["chains"] if done.returncode == 0 else []
        return True if chains and all(chain["signed"] == chain["last"] for chain in chains) else None

    until(all_signed, "every line to be signed")


# --- a node that runs -----------------------------------------------------------------------------------------------


def test_a_running_node_is_verified_read_anchored_and_given_a_new_key() -> None:
    with running({"log": {"requests": "none"}, "journal": {"anchors": [{"kind": "file", "path": "./worm"}]}}) as node:
        config = ("--config", node.config_path)
        request_id = node.chat().header("x-request-id")
        node.chat("sim-nobody", stream=True)
        signed(node)
        old_key = audit("keys", "export", *config).stdout.strip()
        assert audit("verify", "--public-key", old_key, *config).stdout.splitlines()[-1].startswith("verified: ")

        shown = audit("show", "--exchange", request_id, *config).stdout.splitlines()
        assert [line.split()[2] for line in shown] == ["decision", "outcome"]
        assert audit("grep", request_id, "--kind", "outcome", *config).stdout.splitlines() == shown[1:]

        anchored = audit("anchor", *config)
        assert anchored.returncode == 0, anchored.stderr
        anchor = anchored.stdout.split(" is at ")[1].split(" (")[0]

        proofs = audit("prove", request_id, *config).stdout
        checked = audit("check-proof", "-", "--public-key", old_key, given=proofs)
        assert checked.stdout.count("proved: ") == 2, checked.stderr

        assert audit("keys", "rotate", *config).returncode == 0
        new_key = until(lambda: _other(audit("keys", "export", *config).stdout.strip(), old_key), "a new key to sign")
        assert node.chat().status == 200
        signed(node)
        for key in (old_key, new_key):
            done = audit("verify", "--public-key", key, *config)
            assert done.stdout.splitlines()[-1].startswith("verified: "), done.stdout
        done = audit("verify", "--public-key", new_key, "--from", anchor, *config)
        assert ", from manifest " in done.stdout.splitlines()[-1], done.stdout


def _other(key: str, than: str) -> str | None:
    return key if key and key != than else None


def test_a_node_under_load_is_verified_again_and_again() -> None:
    with running({"log": {"requests": "none"}}, workers=2) as node:
        for _ in range(8):
            for _ in range(25):
                assert node.chat().status == 200
            done = audit("verify", "--config", node.config_path)
            assert done.returncode == 0, done.stdout


def test_what_is_written_from_now_on_is_followed() -> None:
    with running({"log": {"requests": "none"}}) as node:
        command = [sys.executable, "-m", "gateway", "audit", "show", "--follow", "--kind", "outcome"]
        shower = subprocess.Popen(
            [*command, "--config", str(node.config_path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert shower.stdout is not None
        try:
            request_id = node.chat().header("x-request-id")
            assert request_id in shower.stdout.readline()
        finally:
            shower.kill()
            shower.wait()
            shower.stdout.close()


# --- a copy ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The journal of a node that ran twice and was stopped, and the key that signed it."""
    copy = tmp_path_factory.mktemp("kept") / "journal"
    with running({"log": {"requests": "none"}}, workers=2) as node:
        for _ in range(2):
            for _ in range(12):
                assert node.chat().status == 200
            assert node.stop() == 0
            shutil.copytree(node.directory / "state" / "journal", copy, dirs_exist_ok=True)
            node.start()
        key = audit("keys", "export", "--config", node.config_path).stdout.strip()
    return copy, key


@pytest.fixture
def journal(kept: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(kept[0], tmp_path / "journal")


@pytest.fixture
def key(kept: tuple[Path, str]) -> str:
    return kept[1]


def busiest(journal: Path) -> Path:
    """The segment with the most in it."""
    return max(journal.glob("w*/0*.jsonl"), key=lambda path: path.stat().st_size)


def change_lines(path: Path, change: Callable[[list[bytes]], object]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 4
    change(lines)
    path.write_bytes(b"".join(lines))


def edit(journal: Path) -> None:
    path = busiest(journal)
    path.write_bytes(path.read_bytes().replace(b'"status":200', b'"status":500', 1))


def reorder(journal: Path) -> None:
    change_lines(busiest(journal), lambda lines: lines.insert(3, lines.pop(2)))


def delete_in_the_middle(journal: Path) -> None:
    change_lines(busiest(journal), lambda lines: lines.pop(2))


def cut_the_tail(journal: Path) -> None:
    change_lines(busiest(journal), lambda lines: lines.pop())


def remove_a_slot(journal: Path) -> None:
    shutil.rmtree(busiest(journal).parent)


def remove_the_newest_segment(journal: Path) -> None:
    max(path for path in busiest(journal).parent.glob("0*.jsonl") if path.stat().st_size).unlink()


def remove_the_manifests(journal: Path) -> None:
    shutil.rmtree(journal / "manifests")


def replace_the_last_manifest(journal: Path) -> None:
    change_lines(layout.manifest_files(journal)[-1], lambda lines: lines.append(lines.pop() and lines[-1]))


def forge_a_manifest(journal: Path) -> None:
    path = layout.manifest_files(journal)[-1]
    head, _, signature = path.read_bytes().rpartition(b'"sig":"')
    path.write_bytes(head + b'"sig":"' + bytes(reversed(signature[:128])) + signature[128:])


def name_another_node(journal: Path) -> None:
    (journal / "node.json").write_text(json.dumps({"v": 1, "node": "0" * 32}) + "\n")


def swap_chains(journal: Path) -> None:
    for names in (("w0", "aside"), ("control", "w0"), ("aside", "control")):
        (journal / names[0]).rename(journal / names[1])


@pytest.mark.parametrize(
    "tamper",
    [
        edit, reorder, delete_in_the_middle, cut_the_tail, remove_a_slot, remove_the_newest_segment,
        remove_the_manifests, replace_the_last_manifest, forge_a_manifest, name_another_node, swap_chains,
    ],
)  # fmt: skip
def test_a_copy_that_was_changed_is_found_out(journal: Path, key: str, tamper: Callable[[Path], None]) -> None:
    done = audit("verify", journal, "--public-key", key)
    assert (done.returncode, done.stdout.splitlines()[-1][:9]) == (0, "verified:"), done.stdout
    tamper(journal)
    done = audit("verify", journal, "--public-key", key)
    assert done.returncode == 1, done.stdout
    assert "FINDING    " in done.stdout


def test_a_copy_of_yesterday_passes_for_who_has_no_anchor(journal: Path, key: str, tmp_path: Path) -> None:
    """The one thing that nothing in a journal can show."""
    path = layout.manifest_files(journal)[-1]
    (tmp_path / "anchor").write_bytes(path.read_bytes().splitlines()[-1])
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    ends = {end["chain"]: end for end in lines[-2]["chains"]}
    for end in lines[-1]["chains"]:
        before = ends.get(end["chain"], {"segment": 0, "offset": 0})
        for segment in layout.segments(journal, end["chain"]):
            whole = layout.segment_path(journal, end["chain"], segment)
            if segment == before["segment"]:
                whole.write_bytes(whole.read_bytes()[: before["offset"]])
            elif segment > before["segment"]:
                whole.unlink()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert audit("verify", journal, "--public-key", key).returncode == 0
    done = audit("verify", journal, "--public-key", key, "--from", tmp_path / "anchor")
    assert done.returncode == 1
    assert "this journal is older than the anchor" in done.stdout


def test_a_pager_that_was_left_is_no_error(journal: Path) -> None:
    command = f"{sys.executable} -m gateway audit show {journal} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_words_that_are_wrong_end_with_2(journal: Path, tmp_path: Path) -> None:
    assert audit("verify", tmp_path / "nowhere").returncode == 2
    assert audit("verify", journal, "--public-key", "nonsense").returncode == 2
    assert audit("show", journal, "--since", "some day").returncode == 2
    assert audit("nothing").returncode == 2


def read_in_parts(journal: Path) -> Iterator[str]:
    """Every exchange there is."""
    for line in audit("show", journal, "--kind", "outcome").stdout.splitlines():
        yield line.split()[1]


def test_every_exchange_of_a_copy_can_be_proved(journal: Path, key: str) -> None:
    ids = list(read_in_parts(journal))
    assert len(ids) >= 24
    for record_id in (ids[0], ids[len(ids) // 2], ids[-1]):
        proof = audit("prove", record_id, journal).stdout
        assert audit("check-proof", "-", "--public-key", key, given=proof).stdout.startswith("proved: ")
        assert audit("check-proof", "-", "--public-key", "0" * 64, given=proof).returncode == 1
