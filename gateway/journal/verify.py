"""Is this journal what its node wrote? Everything that can be known from the files, in one pass over them.

Models a reading in step. Manifests are taken in order, and each pulls the chains along: every chain is checked up to
the line that the manifest says it signed, its head there must be the signed one, and the lines passed since the
manifest before must have the signed Merkle root. What stands behind the newest manifest is checked by itself and told
as unsigned. So every byte is read once, and memory holds a block of each chain, however long a journal is.

Invariants: nothing is believed that is not signed, or leads by hashes to something that is (without a key: that is not
in a manifest, or leads to one, which shows `integrity only`); a finding ends what depends on it and nothing else: the
chain where it is, the manifests where it is there. A journal that is being written is checked as it was at the start.

Left out: whether records mean anything; `holds.json` and locks, which are nobody's record; and a journal that was cut
back to an earlier signed state as a whole, which only something outside of it can show (`since`: an anchor).
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.journal import layout
from gateway.journal.findings import ChainReport, Fault, Finding, Report
from gateway.journal.line import Malformed, parse, record_of
from gateway.journal.manifest import BadManifest, ChainEnd, Manifest, ManifestFloor, fault_after
from gateway.journal.manifest import parse as parse_manifest
from gateway.journal.manifestscan import Checkpoint, Signed
from gateway.journal.merkle import Tree
from gateway.journal.moment import take
from gateway.journal.scan import ChainScan
from gateway.journal.starts import Waypoint, find_beginning, header_of
from gateway.journal.torn import Cut, changed, changed_manifests, cut_of
from gateway.journal.trust import Keys, Trust
from gateway.record import Record
from gateway.units import US_PER_S

UNSIGNED_S: Final = 10  # control signs each second: what waits longer for it waits for nobody, or was signed once
_AGAIN: Final = 2
Progress = Callable[[int, int], None]


def verify(
    journal: Path,
    keys: Keys | None = None,
    since: Checkpoint | None = None,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Report:
    """Check a journal, from its beginning or from a manifest that is trusted; `progress` is told bytes done and all.

    Begins again when retention drops what was still to be read. Raises NoJournal for a directory that holds nothing of
    a journal, and OSError for what cannot be read.
    """
    if not journal.is_dir():
        raise layout.NoJournal(f"{journal} is no directory")
    if not layout.manifest_files(journal) and not layout.chains(journal) and not (journal / "node.json").exists():
        raise layout.NoJournal(f"{journal} holds no journal: there is no chain, no manifest and no node.json")
    for _ in range(_AGAIN):
        with suppress(FileNotFoundError):
            return _verify(journal, keys or {}, since, progress or _unseen, pause)
    return _verify(journal, keys or {}, since, progress or _unseen, pause)


def _verify(
    journal: Path, keys: Keys, since: Checkpoint | None, progress: Progress, pause: Callable[[float], None]
) -> Report:
    check = _Check(journal, keys, progress, pause)
    check.run(since)
    return check.report


def _unseen(_done: int, _total: int) -> None:
    """Nobody watches."""


class _Check:
    """One verification; the Watch of its chains."""

    def __init__(self, journal: Path, keys: Keys, progress: Progress, pause: Callable[[float], None]) -> None:
        self.report = Report(integrity_only=not keys)
        self._journal = journal
        self._told = progress
        self._pause = pause
        self._trust = Trust(keys, self.report.manifests)
        self._manifests, self._sizes = take(journal, pause)
        self._scans = dict[str, ChainScan]()
        self._reports = dict[str, ChainReport]()
        self._waypoints = dict[str, Waypoint]()
        self._lost = set[str]()  # chains that no longer follow the manifests
        self._previous: Signed | None = None  # the last manifest that was believed
        self._broke = False  # one was not
        self._cuts = dict[str, set[Cut]]()
        self._done = 0
        self._total = sum(sum(sizes.values()) for sizes in self._sizes.values())

    def run(self, since: Checkpoint | None) -> None:
        """Check everything there is, in order."""
        anchor = self._anchored(since) if since is not None else None
        if since is not None and anchor is None:
            return
        newest = self._manifests.newest
        self.report.node = self._node(newest)
        if not self.report.node:
            self.report.notes.append("nothing else was checked: without the node's id no chain can be")
            return
        try:
            self._begin(newest, anchor)
            self._walk(anchor)
            for scan in self._scans.values():
                self._end(scan)
        finally:
            for scan in self._scans.values():
                scan.close()
        self._finish(newest)

    # --- told by the chains -----------------------------------------------------------------------------------------

    def found(self, finding: Finding) -> None:
        """Note what is wrong."""
        self.report.findings.append(finding)

    def repaired(self, chain: str, segment: int, seq: int, record: Record) -> None:
        """Note a repair, for its signature and for what it cut."""
        finding = Finding(
            fault=Fault.REPAIR,
            message=f"a repair says key {record.signed_by} signed it, and it did not",
            chain=chain,
            segment=segment,
            seq=seq,
        )
        doubt = self._trust.repair(finding, record, self.report.node)
        if doubt is not None:
            self.found(doubt)
        cut = cut_of(record)
        self._cuts.setdefault(chain, set()).add(cut)
        if cut.signed_lost:
            self.report.notes.append(
                f"{finding.where}: a repair says that {cut.signed_lost:,} signed lines were lost: by the disk, or by "
                "whoever removed them before the gateway started"
            )

    def progress(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        self._told(self._done, self._total)

    # --- before the first line --------------------------------------------------------------------------------------

    def _anchored(self, since: Checkpoint) -> Signed | None:
        """The manifest to start from; None, and a finding, when it is not in this journal."""
        line = self._manifests.find(since)
        try:
            manifest = parse_manifest(line)
        except BadManifest as error:
            message = f"{since.name} cannot be read here: {error}" if line else self._absent(since)
            self.found(Finding(fault=Fault.ANCHOR, message=message, manifest=since.n))
            return None
        if since.line and since.line != line:
            message = "the manifest of this number is another one than the anchored"
            self.found(Finding(fault=Fault.ANCHOR, message=message, manifest=since.n))
            return None
        fault = self._trust.judge(manifest, line)
        if fault:
            self.found(Finding(fault=Fault.SIGNATURE, message=fault, manifest=manifest.n))
            return None
        self.report.since = manifest.n
        return Signed(manifest, line)

    def _absent(self, since: Checkpoint) -> str:
        newest = self._manifests.newest
        if newest is None:
            return f"{since.name} is not in this journal, which holds no manifest"
        floor = newest.manifest.manifest_floor
        if floor is not None and 0 <= since.n < floor.n:
            return f"{since.name} was dropped with what it covers: give a newer anchor, from {floor.n:,} on"
        return f"{since.name} is not in this journal, whose newest is {newest.manifest.n:,}"

    def _node(self, newest: Signed | None) -> str:
        """The node's id, by its file or else by what was signed; "" when neither says."""
        path, signed = self._journal / "node.json", newest.manifest.node if newest else ""
        try:
            node = layout.node_id(self._journal)
            faithful = path.read_bytes() == b'{"v": 1, "node": "%b"}\n' % node.encode()
        except layout.NoJournal as error:
            self.found(Finding(fault=Fault.NODE, message=str(error)))
            return signed
        if not faithful:
            self.found(Finding(fault=Fault.NODE, message="node.json is not as it was written"))
        if signed and signed != node:
            message = f"node.json names node {node}, the newest manifest is of node {signed}"
            self.found(Finding(fault=Fault.NODE, message=message))
        return node

    def _begin(self, newest: Signed | None, anchor: Signed | None) -> None:
        """A walker at the beginning of every chain that is there, or should be."""
        named = [end.chain for end in newest.manifest.chains] if newest else []
        for chain in dict.fromkeys([*self._sizes, *named]):
            self._begin_chain(chain, newest, anchor)
            if chain not in self._sizes:
                self._lost.add(chain)
                self.found(Finding(fault=Fault.CHAIN, message="it was signed, and its directory is gone", chain=chain))

    def _begin_chain(self, chain: str, newest: Signed | None, anchor: Signed | None) -> None:
        sizes = self._sizes.get(chain, {})
        begin = find_beginning(self._journal, self.report.node, chain, sizes, newest, anchor)
        for finding in begin.findings:
            self.found(finding)
        self.report.notes.extend([begin.note] if begin.note else [])
        self._waypoints.update({chain: begin.waypoint} if begin.waypoint else {})
        scan = ChainScan(self._journal, self.report.node, chain, begin.start, sizes, self, self._pause)
        scan.broken = begin.hopeless
        self._scans[chain] = scan
        end = anchor.manifest.end_of(chain) if anchor else None
        signed = end.seq if end and not begin.hopeless else -1
        self._reports[chain] = ChainReport(chain=chain, segments=len(sizes), first=begin.start.seq, signed=signed)
        self.report.chains.append(self._reports[chain])
        self._total -= sum(size for segment, size in sizes.items() if segment < begin.start.segment)
        self._total -= begin.start.offset

    # --- the manifests, and the chains along them -------------------------------------------------------------------

    def _walk(self, anchor: Signed | None) -> None:
        """Take the manifests in order; the first that is not to be believed ends it."""
        self._previous = anchor
        for raw in self._lines(anchor):
            self.progress(len(raw))
            line = raw.removesuffix(b"\n")
            manifest = self._believed(line, whole=line != raw)
            if manifest is None:
                self._broke = True
                self._jump(line)
                return
            self._follow(manifest)
            self._note(manifest)
            self._previous = Signed(manifest, line)
        if self._manifests.torn:
            message = f"the manifests end with {self._manifests.torn:,} bytes that are no whole line"
            self.found(Finding(fault=Fault.INCOMPLETE, message=message))

    def _lines(self, anchor: Signed | None) -> Iterator[bytes]:
        """The manifests' lines, newlines included: those behind the anchor where there is one."""
        n = anchor.manifest.n if anchor is not None else 0
        self._total += self._manifests.size_bytes(n)
        lines = self._manifests.lines(n)
        if anchor is not None:
            for raw in lines:
                self._total -= len(raw)
                if raw.removesuffix(b"\n") == anchor.line:
                    break
        return lines

    def _believed(self, line: bytes, *, whole: bool) -> Manifest | None:
        """The manifest of the next line; None, and a finding, when it cannot be the next one."""
        previous = self._previous
        n = previous.manifest.n + 1 if previous else 0
        try:
            manifest = parse_manifest(line)
        except BadManifest as error:
            self.found(Finding(fault=Fault.MANIFEST, message=str(error), manifest=n))
            return None
        if previous is None:
            fault = self._first_fault(manifest)
        else:
            fault = fault_after(previous.manifest, previous.line, manifest)
        if not fault:
            fault = self._floor_fault(manifest) if whole else "its line does not end where it should"
        kind = Fault.MANIFEST
        if not fault:
            kind, fault = Fault.SIGNATURE, self._trust.judge(manifest, line)
        if fault:
            self.found(Finding(fault=kind, message=fault, manifest=manifest.n))
        return None if fault else manifest

    def _first_fault(self, manifest: Manifest) -> str:
        """Why the manifests may not begin with this one."""
        if manifest.node != self.report.node:
            return f"it is of node {manifest.node}, this is node {self.report.node}"
        floor = self._manifest_floor()
        if manifest.n and (floor is None or manifest.n > floor.n):
            missing = f"{floor.n if floor else 0:,}–{manifest.n - 1:,}"
            return f"manifests {missing} before it are missing, and nothing signed says they were dropped"
        return ""

    def _floor_fault(self, manifest: Manifest) -> str:
        """Why this cannot be the manifest at which the manifests are said to begin."""
        floor = self._manifest_floor()
        if floor is not None and manifest.n == floor.n and manifest.prev != floor.prev:
            return "the newest manifest says that another one begins the manifests"
        return ""

    def _manifest_floor(self) -> ManifestFloor | None:
        newest = self._manifests.newest
        return newest.manifest.manifest_floor if newest else None

    def _note(self, manifest: Manifest) -> None:
        report = self.report.manifests
        report.first = manifest.n if report.first < 0 else report.first
        report.last, report.last_at_us = manifest.n, manifest.at_us
        report.count += 1

    def _jump(self, bad: bytes) -> None:
        """Behind a manifest that is not to be believed: the newest may still say how far the chains must reach."""
        newest = self._manifests.newest
        if newest is None or newest.line == bad or newest.manifest.node != self.report.node:
            return
        if self._trust.believes(newest.manifest, newest.line):
            for end in newest.manifest.chains:
                self._reach(end, 0, None, newest.manifest.n)

    def _follow(self, manifest: Manifest) -> None:
        """Bring every chain to where this manifest says it ended, and compare what it says of the lines between."""
        tree, whole = Tree(), True
        for end in manifest.chains:
            first = manifest.first.get(end.chain, end.seq + 1)
            whole = self._reach(end, first, tree, manifest.n) and whole
        if whole and (tree.size, tree.root().hex()) != (manifest.leaves, manifest.root):
            message = "its root is not that of the lines which it says are new"
            self.found(Finding(fault=Fault.MANIFEST, message=message, manifest=manifest.n))

    def _reach(self, end: ChainEnd, first: int, tree: Tree | None, n: int) -> bool:
        """Bring a chain to a signed end; whether all its lines from number `first` on went into the tree."""
        scan = self._scans.get(end.chain)
        if scan is None or scan.broken or end.chain in self._lost:
            return False
        reached = self._advance(scan, first, None)
        began = scan.seq
        if not reached or not self._advance(scan, end.seq + 1, tree):
            return False
        if scan.seq <= end.seq:
            self._lose(scan, scan.seq, Fault.CUT, _too_short(scan, end, n))
            return False
        if scan.seq == end.seq + 1:
            moved = scan.seq > began
            if scan.head.hex() != end.head or (moved and (scan.segment, scan.offset) != (end.segment, end.offset)):
                self._lose(scan, began, Fault.REWRITTEN, _rewritten(began, end, n))
                return False
            self._reports[end.chain].signed = end.seq
        return began <= first or first > end.seq

    def _advance(self, scan: ChainScan, until: int, tree: Tree | None) -> bool:
        """Check a chain up to a line, by way of its floor where it began before that; whether it is whole so far."""
        way = self._waypoints.get(scan.chain)
        if way is not None and way.seq < until:
            del self._waypoints[scan.chain]
            scan.advance(way.seq, tree)
            if scan.seq == way.seq and scan.head != way.head:
                self._lose(scan, scan.seq, Fault.FLOOR, "the signed floor says that the lines before it were others")
        scan.advance(until, tree)
        return not scan.broken

    def _lose(self, scan: ChainScan, seq: int, fault: Fault, message: str) -> None:
        """A chain is not what was signed: from here on it is only checked by itself."""
        self._lost.add(scan.chain)
        self.found(Finding(fault=fault, message=message, chain=scan.chain, segment=scan.segment, seq=seq))

    # --- after the last manifest ------------------------------------------------------------------------------------

    def _end(self, scan: ChainScan) -> None:
        """Check what no manifest covers, and sum the chain up."""
        self._advance(scan, sys.maxsize, None)
        report = self._reports[scan.chain]
        report.last, report.lines, report.size_bytes = scan.seq - 1, scan.seq - scan.first, scan.size_bytes
        report.whole = not scan.broken and scan.chain not in self._lost
        if report.whole and report.unsigned and not self._broke:
            self._judge_unsigned(scan, report)
        if not scan.broken:
            cuts = {cut[:3] for cut in self._cuts.get(scan.chain, ())}
            self.report.findings.extend(changed(self._journal, scan.chain, cuts, scan.begun))

    def _judge_unsigned(self, scan: ChainScan, report: ChainReport) -> None:
        """Lines wait a second for their signature; what waits longer needs an explanation."""
        if self._previous is None:
            return  # there is no manifest at all, which is one finding and not one a chain
        signed_us = self._previous.manifest.at_us
        late_s = (_at_us(scan.last) - signed_us) // US_PER_S
        message = ""
        if late_s > UNSIGNED_S:
            message = (
                f"{report.unsigned:,} lines are not signed; the last was written {late_s:,} s after the last manifest"
            )
        elif report.signed < 0:
            header = header_of(self._journal, scan.chain, scan.begun)
            if header is not None and (signed_us - header[1].at_us) // US_PER_S > UNSIGNED_S:
                message = "no manifest names this chain, and it is older than the last one"
        if message:
            finding = Finding(
                fault=Fault.UNSIGNED, message=message, chain=scan.chain, segment=scan.segment, seq=report.signed + 1
            )
            self.found(finding)

    def _finish(self, newest: Signed | None) -> None:
        if newest is None and self.report.lines:
            self.found(Finding(fault=Fault.UNSIGNED, message="there is no manifest: nothing here was ever signed"))
        floor = self._manifest_floor()
        findings, notes = self._trust.doubts(dropped=floor is not None or self.report.since >= 0, broke=self._broke)
        self.report.findings.extend([*findings, *changed_manifests(self._journal)])
        self.report.notes.extend(notes)


def _at_us(line: bytes) -> int:
    """When a line was written, as it says; 0 when it does not."""
    try:
        return record_of(parse(line + b"\n").body).at_us
    except Malformed:
        return 0


def _too_short(scan: ChainScan, end: ChainEnd, n: int) -> str:
    signed = f"manifest {n:,} signed its lines up to {end.seq:,}, in segment {end.segment}"
    return f"{signed}; the chain ends after line {scan.seq - 1:,}, in segment {scan.segment}"


def _rewritten(began: int, end: ChainEnd, n: int) -> str:
    lines = f"lines {began:,}–{end.seq:,} are" if began < end.seq else f"line {end.seq:,} is"
    return f"{lines} not what manifest {n:,} signed, though the hashes in the chain fit"
