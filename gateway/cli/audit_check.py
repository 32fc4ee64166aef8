"""`gateway audit verify | prove | check-proof | anchor | keys`: what they do, and what they say.

Exit codes: 0 done and nothing wrong, 1 something is wrong or could not be done, 2 the words were wrong (so is naming a
directory without a journal: it must not look like one that was checked).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.cli.progress import Bar
from gateway.config.load import load, skim
from gateway.config.problems import ConfigProblems
from gateway.control.anchoring import NothingSigned, anchor_now
from gateway.journal import layout, signing
from gateway.journal import prove as proving
from gateway.journal import verify as verifying
from gateway.journal.findings import INTEGRITY_ONLY, MEANING, ChainReport, Report
from gateway.journal.manifest import BadManifest, last_manifest
from gateway.journal.manifestscan import BadCheckpoint, read_checkpoint
from gateway.journal.show import plain, time_of
from gateway.journal.signing import SigningError
from gateway.journal.trust import BadKey, Keys, read_keys

_MAX_PROOF_BYTES: Final = 64 * 1024 * 1024
_MEGA: Final = 1_000_000


def journal_of(given: argparse.Namespace) -> Path:
    """The journal that the words name. Raises ConfigProblems."""
    if given.directory is None:
        return layout.journal_of(Path(skim(given.config, given.set).state_dir))
    directory = Path(given.directory)
    inner = layout.journal_of(directory)
    return inner if inner.is_dir() and not (directory / "node.json").exists() else directory


def wrong(error: object, code: int = 2) -> int:
    """Say what is wrong, and end with a code."""
    print(error if isinstance(error, ConfigProblems) else f"gateway: {plain(str(error))}", file=sys.stderr)
    return code


# --- verify ---------------------------------------------------------------------------------------------------------


def verify(given: argparse.Namespace) -> int:
    """`gateway audit verify`."""
    bar = Bar(sys.stderr, forced=given.progress)
    try:
        keys, since = read_keys(given.public_key), read_checkpoint(given.since) if given.since else None
        journal = journal_of(given)
        report = verifying.verify(journal, keys, since, bar)
    except (BadKey, BadCheckpoint, layout.NoJournal) as error:
        return wrong(error)
    except ConfigProblems as problems:
        return wrong(problems, 1)
    except OSError as error:
        return wrong(f"{error}: if retention dropped it meanwhile, verify again", 1)
    finally:
        bar.close()
    print(_as_json(report) if given.json else "\n".join(_in_words(report, journal)))
    return 0 if report.ok else 1


def _as_json(report: Report) -> str:
    document: dict[str, Any] = msgspec.to_builtins(report)
    for told, finding in zip(document["findings"], report.findings, strict=True):
        told.update(where=finding.where, meaning=MEANING[finding.fault])
    summary = {"verdict": report.verdict, "ok": report.ok, "lines": report.lines, "size_bytes": report.size_bytes}
    return msgspec.json.format(msgspec.json.encode(summary | document)).decode()


def _in_words(report: Report, journal: Path) -> list[str]:
    said = [f"journal    {journal}, node {report.node or 'unknown'}"]
    said += [_chain_in_words(chain) for chain in report.chains]
    said += [_manifests_in_words(report)]
    said += [f"note       {note}" for note in report.notes]
    said += [f"FINDING    {finding}" for finding in report.findings]
    return [plain(line) for line in [*said, _verdict_in_words(report)]]


def _chain_in_words(chain: ChainReport) -> str:
    if chain.last < chain.first:
        return f"chain      {chain.chain:<8} nothing to read from line {chain.first:,} on"
    signed = "all signed" if not chain.unsigned else f"the last {chain.unsigned:,} not signed"
    lines = f"lines {chain.first:,}–{chain.last:,}, {_size(chain.size_bytes)}"
    return f"chain      {chain.chain:<8} {lines}, {signed if chain.whole else 'not whole'}"


def _manifests_in_words(report: Report) -> str:
    told = report.manifests
    if not told.count:
        return "manifests  none read" + (f" after number {report.since:,}" if report.since >= 0 else "")
    keys = f"{told.signatures:,} signatures checked" if not report.integrity_only else "no signature checked"
    vouched = f", {told.vouched:,} vouched for by later ones" if told.vouched else ""
    by = f"the last of {time_of(told.last_at_us, 'seconds')}, by key {', '.join(told.keys)}"
    return f"manifests  {told.first:,}–{told.last:,}, {by}; {keys}{vouched}"


def _verdict_in_words(report: Report) -> str:
    read = f"{report.lines:,} lines, {_size(report.size_bytes)}"
    since = f", from manifest {report.since:,} on" if report.since >= 0 else ""
    if report.findings:
        return f"{report.verdict}: this journal cannot be trusted as it is ({read}{since})"
    if report.integrity_only:
        return (
            f"{INTEGRITY_ONLY}: {read}{since} fit together; who wrote them was not checked. Name the key that signs "
            "with --public-key (`gateway audit keys export` on the node)"
        )
    return f"verified: {read}{since}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _MEGA:,.1f} MB" if size_bytes >= _MEGA else f"{size_bytes:,} bytes"


# --- proofs ---------------------------------------------------------------------------------------------------------


def prove(given: argparse.Namespace) -> int:
    """`gateway audit prove`."""
    try:
        journal = journal_of(given)
        keys = read_keys(given.public_key) if given.public_key else _keys_beside(journal)
        for entry in proving.find(journal, given.id):
            print(proving.encode(proving.prove(journal, entry, keys)).decode())
    except (BadKey, layout.NoJournal) as error:
        return wrong(error)
    except (ConfigProblems, proving.NotProvable, SigningError, OSError) as error:
        return wrong(error, 1)
    return 0


def _keys_beside(journal: Path) -> Keys:
    """The public keys of the state_dir that a journal lies in, to be named in its proofs."""
    return signing.public_keys(layout.signing_of(journal.parent))


def check_proof(given: argparse.Namespace) -> int:
    """`gateway audit check-proof`."""
    try:
        keys = read_keys(given.public_key)
        document = _read(given.file)
    except (BadKey, OSError) as error:
        return wrong(error)
    proofs = [line for line in document.splitlines() if line.strip()]
    if not proofs:
        return wrong(f"{given.file} is empty: it should hold what `gateway audit prove` printed", 1)
    try:
        for proof in proofs:
            print(plain(_proved_in_words(proving.check(proof, keys))))
    except proving.BadProof as error:
        return wrong(f"NOT PROVED: {error}", 1)
    return 0


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(_MAX_PROOF_BYTES)
    with Path(file).open("rb") as opened:
        return opened.read(_MAX_PROOF_BYTES)


def _proved_in_words(proved: proving.Proved) -> str:
    manifest, record = proved.manifest, proved.record
    how = "proved" if proved.trusted else f"{INTEGRITY_ONLY} (by the key that the proof brings, {manifest.key})"
    what = f"{record.kind.value} {record.exchange_id or record.action}"
    at = time_of(manifest.at_us, "seconds")
    return f"{how}: {proved.id}, {what}, was in the journal by {at} (manifest {manifest.n:,})"


# --- anchors and keys -----------------------------------------------------------------------------------------------


def anchor(given: argparse.Namespace) -> int:
    """`gateway audit anchor`."""
    try:
        config = load(given.config, given.set)
        if not config.journal.anchors:
            return wrong("journal.anchors is empty: say where to anchor, for example {kind: file, path: /mnt/worm}")
        results = anchor_now(config, layout.journal_of(Path(config.state_dir)))
    except (ConfigProblems, NothingSigned, BadManifest, OSError) as error:
        return wrong(error, 1)
    for result in results:
        if result.problem:
            print(f"gateway: {plain(result.problem)}", file=sys.stderr)
        else:
            print(f"manifest {result.n:,} is at {result.where} ({result.anchor})")
    return 1 if any(result.problem for result in results) else 0


def keys_list(given: argparse.Namespace) -> int:
    """`gateway audit keys list`."""
    return _with_keys(given, lambda keys, current: [f"{key}{'  signs' if key == current else ''}" for key in keys])


def keys_export(given: argparse.Namespace) -> int:
    """`gateway audit keys export`."""
    return _with_keys(given, lambda keys, current: [keys[key].hex() for key in keys if given.all or key == current])


def keys_rotate(given: argparse.Namespace) -> int:
    """`gateway audit keys rotate`."""
    try:
        signing.request_rotation(_signing(given))
    except (ConfigProblems, SigningError) as error:
        return wrong(error, 1)
    print("the next manifest hands over to a new key: within a second where the gateway runs, else when it starts")
    return 0


def _signing(given: argparse.Namespace) -> Path:
    return layout.signing_of(Path(skim(given.config, given.set).state_dir))


def _with_keys(given: argparse.Namespace, say: Callable[[Keys, str], list[str]]) -> int:
    """Print something of the public keys there are, of which the newest manifest says which one signs next."""
    try:
        directory = _signing(given)
        keys = signing.public_keys(directory)
        newest = last_manifest(layout.journal_of(directory.parent))
    except (ConfigProblems, SigningError, BadManifest, OSError) as error:
        return wrong(error, 1)
    if not keys:
        return wrong(f"{directory} holds no key: the first is made when the gateway starts", 1)
    print("\n".join(say(keys, newest.signer_after() if newest else next(iter(keys)))))
    return 0
