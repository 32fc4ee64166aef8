"""Where things lie: the directories and file names of a journal, and the identity of the node that wrote it.

    <state_dir>/journal/node.json                       the node's id: random, made once, never given to another
    <state_dir>/journal/<chain>/<segment>.jsonl         lines; segments are numbered from 1, ten digits
    <state_dir>/journal/<chain>/lock                    held by the process that writes the chain
    <state_dir>/journal/manifests/<number>.jsonl        what control has signed
    <state_dir>/journal/holds.json                      legal holds
    <state_dir>/journal/revocations                     revoked keys that control's chain has told of
    <state_dir>/signing/  <state_dir>/sealing/          keys: outside of the journal, so that a copy of it holds none

Chains are named `w0`, `w1`, … for the workers' slots and `control` for control's.
"""

import json
import os
import re
import secrets
from pathlib import Path
from typing import Final

MANIFESTS: Final = "manifests"
CONTROL: Final = "control"
_SEGMENT: Final = re.compile(r"([0-9]{10})\.jsonl")
_CHAIN: Final = re.compile(r"w(0|[1-9][0-9]{0,5})|control")
_NODE: Final = re.compile(r"[0-9a-f]{32}")


class NoJournal(Exception):
    """This directory holds no journal, or none whose node can be told; the message says why."""


def journal_of(state_dir: Path) -> Path:
    """The journal of a state_dir."""
    return state_dir / "journal"


def sealing_of(state_dir: Path) -> Path:
    """Where the keys of sealed parts lie."""
    return state_dir / "sealing"


def signing_of(state_dir: Path) -> Path:
    """Where the keys that sign manifests lie."""
    return state_dir / "signing"


def worker_chain(slot: int) -> str:
    """The name of a worker slot's chain."""
    return f"w{slot}"


def is_chain(name: str) -> bool:
    """Whether this is the name of a chain."""
    return _CHAIN.fullmatch(name) is not None


def chains(journal: Path) -> list[str]:
    """The chains there are: workers' by number, then control's."""
    found = [entry.name for entry in os.scandir(journal) if entry.is_dir() and is_chain(entry.name)]
    return sorted(found, key=lambda name: (name == CONTROL, len(name), name))


def segment_path(journal: Path, chain: str, segment: int) -> Path:
    """The file of a segment."""
    return journal / chain / f"{segment:010d}.jsonl"


def segments(journal: Path, chain: str) -> list[int]:
    """The numbers of the segments there are, in order; [] for a chain that does not exist."""
    try:
        names = [path.name for path in (journal / chain).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))


def manifest_files(journal: Path) -> list[Path]:
    """The manifest files, in order."""
    try:
        return sorted(path for path in (journal / MANIFESTS).iterdir() if _SEGMENT.fullmatch(path.name))
    except FileNotFoundError:
        return []


def node_id(journal: Path) -> str:
    """The id of the node that writes this journal. Raises NoJournal."""
    path = journal / "node.json"
    try:
        node = json.loads(path.read_bytes())["node"]
    except FileNotFoundError:
        raise NoJournal(f"{journal} holds no journal: {path.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoJournal(f"{path} cannot be read: {error}") from None
    if not isinstance(node, str) or not _NODE.fullmatch(node):
        raise NoJournal(f"{path} names no node")
    return node


def ensure_node(journal: Path) -> str:
    """The id of this node, made when there is none; the directory as well. Raises OSError, NoJournal.

    For a caller who holds the lock of the state_dir. An id is 16 random bytes: two nodes never get the same one, and
    a node that lost its journal is another node. A journal that lost its node's id keeps it in each segment's first
    line: no other id is made for it.
    """
    path = journal / "node.json"
    journal.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        if manifest_files(journal) or any(segments(journal, chain) for chain in chains(journal)):
            raise NoJournal(
                f"{path} is missing, and a journal is there: bring it back from a copy, or write it anew as "
                '{"v": 1, "node": "…"} with the node that every segment names in its first line; or move that journal '
                "away, and another node begins"
            )
        draft = journal / ".node.json"
        draft.write_text(json.dumps({"v": 1, "node": secrets.token_hex(16)}) + "\n")
        sync_file(draft)
        draft.rename(path)
        sync_file(journal)
    return node_id(journal)


def sync_file(path: Path) -> None:
    """Bring a file, or a directory's entries, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
