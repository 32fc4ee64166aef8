"""The notary: each second it has what the chains have grown by on the disk, and signs how far they are whole.

Models one signature under everything that happened in a second. A turn reads what is new of every chain (`tail.py`),
writes one manifest, and only then lets readers see it: what they have done can always be replayed. It signs when
something is new, when a floor or a key changes, once a minute when nothing happens, and once more when it closes.

Invariants: one turn at a time, in any thread. `signed` and what else is read from other threads is replaced, never
changed in place, and only after the manifest that says so is on the disk. A turn that fails has changed nothing: a
manifest once made is written again as the same bytes until it is on the disk, and nothing is signed before it. The
clock decides nothing: manifests are ordered by number, and a minute is one of the monotonic clock. What one chain does
wrong, or the disk under it, does not keep the others from being signed. A key that does not follow from the manifests
signs nothing: nobody would believe it. A turn works in small steps (`pace.py`) for as long as it has time, and the one
after a turn that left something has none. Left out: whom else to show the newest manifest (`anchoring.py`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.control.pace import Pace
from gateway.journal import layout
from gateway.journal.layout import NoJournal
from gateway.journal.manifest import (
    FIRST_PREV,
    MANIFEST_VERSION,
    BadManifest,
    ChainEnd,
    Floor,
    Manifest,
    ManifestFloor,
    chain_order,
    digest_of,
    fault_after,
    is_signed,
    parse,
    sign,
)
from gateway.journal.manifestlog import ManifestLog
from gateway.journal.merkle import Tree
from gateway.journal.read import Place
from gateway.journal.signing import (
    Signer,
    SigningError,
    load_signer,
    public_keys,
    request_rotation,
    rotate,
    rotation_requested,
    switch,
)
from gateway.journal.tail import Batch, Tail
from gateway.units import MIB, NS_PER_US

TURN_BYTES: Final = 64 * MIB  # read in one turn, all chains together
QUIET_S: Final = 60.0  # nothing new for so long, and it is signed that nothing was
PATIENCE_S: Final = 5.0  # a chain that is being repaired after a crash is no news
CLOSE_S: Final = 60.0
STEPS_S: Final = 0.5  # of a turn, with pauses between steps; one that takes longer goes on without
_NO_KEY: Final = "the newest manifest cannot be followed: key "
_RESTORE: Final = (
    "restore that directory from a copy; if the key is lost, stop the gateway and move the journal away, and it begins "
    "another one"
)
_log: Final = logging.getLogger("gateway.control")


class _Pending(NamedTuple):
    """A manifest that was made and is not known to be on the disk yet, and the lines that are signed once it is."""

    line: bytes
    manifest: Manifest
    batches: Mapping[str, Batch]


class Notary:
    """Signs a journal. `turn` and `close` block on the disk; the attributes may be read from any thread.

    `signed`: up to where readers may read each chain. `head_seq`: the last line signed of each. `floors`: where
    chains begin that retention has shortened, as the newest manifest says. `broken`: chains that do not go on, and
    why. `behind`: there is more to sign at once. `problem`: why nothing can be signed now, "" when it can.
    """

    def __init__(
        self,
        journal: Path,
        signing_dir: Path,
        clock_us: Callable[[], int] = lambda: time.time_ns() // NS_PER_US,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._signing = journal, signing_dir
        self._clock_us, self._monotonic_s = clock_us, monotonic_s
        self._turning = threading.Lock()
        self._wishing = threading.Lock()
        self._manifests: ManifestLog | None = None
        self._signer: Signer | None = None
        self._node = ""
        self._tails: dict[str, Tail] = {}
        self._pending: _Pending | None = None
        self._wished: dict[str, Floor] = {}
        self._dropped: ManifestFloor | None = None
        self._signed_s = float("-inf")
        self._closed = False
        self._pace = Pace()
        self._turn_s = 0.0  # when this turn began
        self._faults = Faults(monotonic_s)
        self.signed: Mapping[str, Place] = {}
        self.head_seq: Mapping[str, int] = {}
        self.floors: Mapping[str, Floor] = {}
        self.behind = False
        self.problem = ""
        # for metrics
        self.manifests = 0
        self.lines = 0
        self.failures = 0
        self.last_signed_us = 0

    @property
    def broken(self) -> Mapping[str, str]:
        """Chains that are not signed any further, and why."""
        return self._faults.told

    def turn(self) -> None:
        """Sign what is new. What the disk, a key or the files are to blame for is said, and tried again next time."""
        with self._turning:
            if not self._closed:
                self._pace.hurried, self._turn_s = self.behind, self._monotonic_s()
                self._attempt(last=False)

    def close(self) -> None:
        """Sign all there is and that this is the end, and let go of the files; at most about CLOSE_S."""
        with self._turning:
            until_s = self._monotonic_s() + CLOSE_S
            self._pace.hurried = True
            while not self._closed:
                self._attempt(last=True)
                self._closed = bool(self.problem) or not self.behind or self._monotonic_s() >= until_s
            for tail in self._tails.values():
                tail.close()
            if self._manifests is not None:
                self._manifests.close()

    def raise_floor(self, floors: Iterable[Floor]) -> None:
        """Have the next manifest say that chains begin here; what is below may go once `floors` says so.

        Raises ValueError for a floor above what is signed. One that is below where it was is ignored.
        """
        with self._wishing:
            for floor in floors:
                if floor.seq > self.head_seq.get(floor.chain, -1) + 1:
                    raise ValueError(f"chain {floor.chain} is not signed up to line {floor.seq}")
                now = self._wished.get(floor.chain) or self.floors.get(floor.chain)
                if now is None or (floor.segment > now.segment and floor.seq >= now.seq):
                    self._wished[floor.chain] = floor

    def rotate(self) -> None:
        """Have the next manifest hand over to a new key. Raises SigningError."""
        request_rotation(self._signing)

    # --- a turn -----------------------------------------------------------------------------------------------------

    def _attempt(self, *, last: bool) -> None:
        try:
            self._sign(last=last)
        except (OSError, SigningError, BadManifest, NoJournal) as error:
            self.failures += 1
            self._say(self._told(error))
        else:
            self._say("")

    def _told(self, error: Exception) -> str:
        """An error of a write or a sync names no file: then it is that of the manifests."""
        if not isinstance(error, OSError) or error.filename is not None:
            return str(error)
        path = self._journal / layout.MANIFESTS
        return f"{path} cannot be written: {error.strerror or error}; see that the disk has room and takes writes"

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.error("the journal cannot be signed, and is not read any further: %s", problem)
        elif self.problem and not problem:
            _log.warning("the journal is signed again")
        self.problem = problem

    def _sign(self, *, last: bool) -> None:
        manifests = self._opened()
        signer = self._follow_keys(manifests.last)
        left_over = self._pending is not None
        if self._pending is None:
            self._pending = self._made(manifests, signer, last=last)
        if self._pending is not None:
            self._write(manifests, self._pending)
        self.behind = self.behind or left_over

    def _made(self, manifests: ManifestLog, signer: Signer, *, last: bool) -> _Pending | None:
        """The next manifest; None when nothing has happened that needs one."""
        batches = self._read()
        self.behind = any(batch.more for batch in batches.values())
        floors = self._floors_to_be()
        changing = rotation_requested(self._signing)
        news = changing or floors != self.floors or any(batch.leaves for batch in batches.values())
        if not (news or last or self._monotonic_s() - self._signed_s >= QUIET_S):
            return None
        draft = self._draft(manifests, batches, floors)
        line = sign(draft, signer, rotate(self._signing) if changing else None)
        manifest = parse(line)
        fault = manifests.last is not None and fault_after(manifests.last, manifests.last_line, manifest)
        if fault:
            raise BadManifest(f"what would be signed next contradicts what was signed: {fault}")
        return _Pending(line, manifest, batches)

    def _read(self) -> dict[str, Batch]:
        """What is new of every chain that can be read."""
        for chain in layout.chains(self._journal):
            if chain not in self._tails:
                self._tails[chain] = self._tail(chain, None)
        batches, faults = dict[str, Batch](), dict[str, str]()
        for chain in sorted(self._tails, key=chain_order):
            tail, floor = self._tails[chain], self.floors.get(chain)
            try:
                batches[chain] = tail.read(TURN_BYTES // len(self._tails), 0 if floor is None else floor.segment)
            except OSError as error:
                self.failures += 1
                faults[chain] = str(error)
            else:
                if tail.broken:
                    faults[chain] = tail.broken
        self._faults.see(faults)
        return batches

    def _tail(self, chain: str, end: ChainEnd | None) -> Tail:
        return Tail(self._journal, self._node, chain, end, self._breathe)

    def _breathe(self) -> None:
        if self._monotonic_s() - self._turn_s > STEPS_S:
            self._pace.hurried = True
        self._pace.step()

    def _floors_to_be(self) -> dict[str, Floor]:
        with self._wishing:
            floors = {**self.floors, **self._wished}
        return {chain: floors[chain] for chain in sorted(floors, key=chain_order)}

    def _draft(self, manifests: ManifestLog, batches: Mapping[str, Batch], floors: Mapping[str, Floor]) -> Manifest:
        """A manifest over these lines, not signed yet."""
        last, tree = manifests.last, Tree()
        for batch in batches.values():
            for leaves in self._pace.over(batch.leaves):
                tree.extend(leaves)
        ends = {chain: batches[chain].end if chain in batches else tail.at for chain, tail in self._tails.items()}
        return Manifest(
            v=MANIFEST_VERSION,
            node=self._node,
            n=0 if last is None else last.n + 1,
            at_us=max(0, self._clock_us()),
            prev=FIRST_PREV if last is None else digest_of(manifests.last_line),
            chains=tuple(ends[chain].end_of(chain) for chain in sorted(ends, key=chain_order) if ends[chain].seq >= 0),
            floors=tuple(floors.values()),
            manifest_floor=self._manifest_floor(manifests, floors),
            first={chain: self._tails[chain].at.seq + 1 for chain, batch in batches.items() if batch.leaves},
            leaves=tree.size,
            root=tree.root().hex(),
            key="",
            sig="",
        )

    def _manifest_floor(self, manifests: ManifestLog, floors: Mapping[str, Floor]) -> ManifestFloor | None:
        before = None if manifests.last is None else manifests.last.manifest_floor
        return before if floors == self.floors else manifests.floor_over(floors) or before

    def _write(self, manifests: ManifestLog, pending: _Pending) -> None:
        """Bring a manifest to the disk, and let everybody see what it says."""
        manifests.append(pending.line, pending.manifest)
        self._pending = None
        self._signed_s = self._monotonic_s()
        self.manifests += 1
        self.lines += pending.manifest.leaves
        for chain, batch in pending.batches.items():
            self._tails[chain].advance(batch)
        self._publish(pending.manifest)
        self._follow_keys(pending.manifest)
        self._drop(manifests, pending.manifest)

    def _publish(self, manifest: Manifest) -> None:
        self.signed = {end.chain: Place(end.segment, end.offset) for end in manifest.chains}
        self.head_seq = {end.chain: end.seq for end in manifest.chains}
        self.last_signed_us = manifest.at_us
        with self._wishing:
            self.floors = {floor.chain: floor for floor in manifest.floors}
            self._wished = {
                chain: floor
                for chain, floor in self._wished.items()
                if chain not in self.floors or floor.segment > self.floors[chain].segment
            }

    def _drop(self, manifests: ManifestLog, manifest: Manifest) -> None:
        """Remove the manifests that this one, which is on the disk, says are not needed; or else another time."""
        floor = manifest.manifest_floor
        if floor is not None and floor != self._dropped:
            self._dropped = floor
            try:
                manifests.drop_below(floor)
            except (OSError, BadManifest) as error:
                _log.warning("manifests below number %d cannot be removed: %s", floor.n, error)

    # --- going on from what was signed ------------------------------------------------------------------------------

    def _opened(self) -> ManifestLog:
        """The manifests there are, checked as far as going on from them needs. Raises what `_attempt` expects."""
        if self._manifests is None:
            self._node = layout.node_id(self._journal)
            manifests = ManifestLog(self._journal)
            try:
                self._resume(manifests)
            except BaseException:
                manifests.close()
                raise
            self._manifests = manifests
        return self._manifests

    def _resume(self, manifests: ManifestLog) -> None:
        if manifests.torn:
            _log.warning("a manifest that was never finished is kept as %s/%s", layout.MANIFESTS, manifests.torn)
        last = manifests.last
        if last is None:
            return
        public = public_keys(self._signing).get(last.key)
        if public is None:
            raise SigningError(f"{_NO_KEY}{last.key}.pub is missing in {self._signing}: {_RESTORE}")
        if last.node != self._node or not is_signed(last, manifests.last_line, public):
            raise BadManifest(
                f"manifest {last.n} is not this node's, or its signature is wrong; see `gateway audit verify`"
            )
        self._tails = {end.chain: self._tail(end.chain, end) for end in last.chains}
        self._publish(last)

    def _follow_keys(self, last: Manifest | None) -> Signer:
        """The key that must sign next. Finishes a change of keys that is on the disk. Raises SigningError."""
        signer = self._signer
        if last is not None and last.next is not None and (signer is None or signer.key_id != last.next.key):
            signer = switch(self._signing, last.next.key)
        signer = signer or load_signer(self._signing)
        if last is not None and signer.key_id != last.signer_after():
            raise SigningError(
                f"{_NO_KEY}{last.signer_after()} must sign next, and the current one in {self._signing} is "
                f"{signer.key_id}: {_RESTORE}"
            )
        self._signer = signer
        return signer


class Faults:
    """What is wrong with which chain: told once, and only when it has lasted for PATIENCE_S."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._since_s: dict[str, float] = {}
        self.told: Mapping[str, str] = {}

    def see(self, faults: Mapping[str, str]) -> None:
        """These are the faults there are now."""
        now_s = self._monotonic_s()
        self._since_s = {chain: self._since_s.get(chain, now_s) for chain in faults}
        lasting = {chain: fault for chain, fault in faults.items() if now_s - self._since_s[chain] >= PATIENCE_S}
        for chain in lasting.keys() - self.told.keys():
            _log.error("journal chain %s is signed no further: %s; see `gateway audit verify`", chain, lasting[chain])
        for chain in self.told.keys() - lasting.keys():
            _log.warning("journal chain %s goes on and is signed again", chain)
        self.told = lasting
