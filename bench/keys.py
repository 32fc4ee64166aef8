"""What a key costs: microseconds to find one and bytes to hold one, for 10 to 1,000,000 keys.

    python -m bench.keys [--keys 10 1000 100000 1000000]

Per size: build a key file, then two readers map it at once, as two workers would, and look up random keys until they
have seen most of the file. `find` is the index alone with a digest at hand; `authenticate` starts from the credential,
SHA-256 included, for keys asked for the first time and for ones that are remembered. Memory is what a reader's
resident set grew by, split by the kernel into what it shares with the other and what is its own.

Credentials are made before the clock runs. Nothing is pinned; run it on a quiet machine and compare only within a run.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench import program
from gateway.config.keyfile import KeyFile, build
from gateway.config.keyindex import KeyIndex, Overlay
from gateway.config.keys import KeyRecord, digest
from gateway.identity.identify import CACHED, Identity

SIZES: Final = (10, 1_000, 100_000, 1_000_000)
READERS: Final = 2
MAX_LOOKUPS: Final = 200_000
REPEATS: Final = 5
_KIB: Final = 1024
_MB: Final = 1_000_000


def credential(number: int) -> bytes:
    """The secret of the n-th key."""
    return b"gw-%043d" % number


def records(count: int) -> Iterator[KeyRecord]:
    """Keys as a gateway of that size would have them: org, team, user and a label each."""
    for number in range(count):
        yield KeyRecord(
            digest(credential(number)),
            f"key-{number:07d}",
            f"org-{number % 500}",
            f"team-{number % 5000}",
            f"user-{number}",
            {"app": "search-ui"},
        )


def resident() -> dict[str, int]:
    """This process's resident memory in bytes: shared with others, and its own."""
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows}
    return {
        "shared": (kib["Shared_Clean"] + kib["Shared_Dirty"]) * _KIB,
        "own": (kib["Private_Clean"] + kib["Private_Dirty"]) * _KIB,
        "pss": kib["Pss"] * _KIB,
    }


def microseconds(make: Callable[[], Callable[[bytes], object]], arguments: Sequence[bytes]) -> float:
    """Median over the repeats of one call's CPU time, the loop included; each repeat makes its callable anew."""
    times = []
    for _ in range(REPEATS):
        call = make()
        start = time.process_time()
        for argument in arguments:
            call(argument)
        times.append((time.process_time() - start) / len(arguments) * 1e6)
    return sorted(times)[REPEATS // 2]


def read(path: Path, count: int) -> dict[str, float]:
    """One reader's figures; between mapping and reporting it waits for the others."""
    before = resident()
    start = time.perf_counter()
    index = KeyIndex(KeyFile(path), Overlay())
    opened_us = (time.perf_counter() - start) * 1e6
    chosen = random.Random(1)
    asked = [credential(chosen.randrange(count)) for _ in range(min(MAX_LOOKUPS, max(count, 20_000)))]
    digests = [digest(each) for each in asked]
    made = resident()
    find_us = microseconds(lambda: index.find, digests)
    unknown_us = microseconds(lambda: index.find, [digest(b"x%d" % number) for number in range(20_000)])
    sum(1 for _ in index)  # touch every page: the whole file is what a busy node has mapped
    after = resident()
    few = list(dict.fromkeys(digests))[: CACHED // 2]
    first_us = microseconds(lambda: partial(Identity(index).authenticate, now_ms=0), few)
    identity = Identity(index)
    again_us = microseconds(lambda: partial(identity.authenticate, now_ms=0), few)
    print("ready", flush=True)
    sys.stdin.readline()
    now = resident()
    return {
        "open_us": opened_us,
        "find_us": find_us,
        "unknown_us": unknown_us,
        "authenticate_first_us": first_us,
        "authenticate_again_us": again_us,
        "shared_mb": (now["shared"] - before["shared"]) / _MB,
        "own_mb": max(0, after["own"] - made["own"]) / _MB,
    }


def measure(count: int, directory: Path) -> dict[str, float]:
    """Figures for that many keys, of the first reader; both report, both are there at the same time."""
    path = directory / f"{count}.index"
    start = time.perf_counter()
    build(path, records(count))
    built_s = time.perf_counter() - start
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(path, count)) for _ in range(READERS)]
        for reader in readers:
            assert reader.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
            reader.stdout.readline()
        reports = [json.loads(reader.communicate("\n")[0]) for reader in readers]
    return {"file_mb": path.stat().st_size / _MB, "build_s": built_s, **reports[0]}


@contextmanager
def reading(path: Path, count: int) -> Generator["subprocess.Popen[str]", None, None]:
    """A process that reads the file; it is out of reach of the terminal's Ctrl-C, and ends with the block."""
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "bench.keys", "--read", str(path), str(count)]
    with subprocess.Popen(  # noqa: S603 - ourselves
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def carry_out(sizes: Sequence[int]) -> int:
    """Measure each size and print one row for it."""
    with tempfile.TemporaryDirectory(prefix="bench-keys-") as directory:
        for number, count in enumerate(sizes):
            figures = {"keys": float(count), **measure(count, Path(directory))}
            if not number:
                print("  ".join(figures))
            print("  ".join(f"{value:{len(name)}.{0 if name == 'keys' else 2}f}" for name, value in figures.items()))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m bench.keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=program.count(), nargs="+", default=SIZES, metavar="N", help="sizes to measure")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.read:
        print(json.dumps(read(Path(given.read[0]), int(given.read[1]))))
        return 0
    return program.ended("bench.keys", lambda: carry_out(given.keys))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
