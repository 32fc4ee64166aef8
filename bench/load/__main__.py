"""`python -m bench.load PROFILE`: bring the load, say what the gateway added.

Exit status: 0 every threshold holds, 1 one is missed, 2 the words are wrong, 3 it could not be run.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import program
from bench.load import books, drive, judge, stage
from bench.load.drive import Outcome, Size
from bench.load.judge import Finding
from bench.load.orders import Orders
from bench.load.profiles import BY_NAME, PROFILES, Profile
from bench.load.stage import Stage, Watch
from bench.speed import disturbance
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.workload import MODEL

HOLDS, MISSED = 0, 1
MIN_SECONDS: Final = 4.0  # of which the first two are not counted
DISTRIBUTED: Final = """\
several machines: --url GATEWAY --remote-workers N waits for N workers, each of them started elsewhere with
  PYTHONPATH=. BENCH_ORDERS='…' locust -f bench/locust/PROFILE.py --worker --master-host THIS_MACHINE
where BENCH_ORDERS is printed at the start, with KEY for the keys. A worker ends with its run, and there are two runs:
start it in a loop. On this machine alone, --workers N is enough.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    rows = "\n".join(f"  {p.name:16} {p.what} ({p.rate:g}/s, {p.seconds:g} s)" for p in PROFILES)
    parsed = argparse.ArgumentParser(
        "python -m bench.load",
        description=f"Bring a realistic load, and say what the gateway added.\n\nprofiles:\n{rows}",
        epilog=DISTRIBUTED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parsed.add_argument
    add("profile", choices=BY_NAME, metavar="PROFILE", help="one of the above")
    add("--rate", type=program.number(0.01), help="requests (streams, conversations) a second, all users together")
    add("--users", type=program.count(), help="callers among whom the rate is divided")
    add("--seconds", type=program.number(MIN_SECONDS), help=f"length of a run, at least {MIN_SECONDS:g}")
    add("--workers", type=program.count(), default=1, metavar="N", help="processes of Locust on this machine")
    add("--remote-workers", type=program.count(0), default=0, metavar="N", help="workers of Locust on other machines")
    add("--web", action="store_true", help="Locust's web page in front of the gateway, until Ctrl-C; nothing is judged")
    add("--url", help="a gateway that runs already, instead of one of our own")
    add("--key", default="", help="the key to ask it with")
    add("--neighbours-key", default="", help="another one, of another tenant (noisy_neighbour)")
    add("--model", default=MODEL, help="and the model")
    add("--direct-url", help="what stands behind it, to subtract; without it latencies are told and not judged")
    add("--locust", metavar="PROGRAM", help="the locust to use (build/locust/bin/locust, or the one on the PATH)")
    return parsed


def size_of(options: argparse.Namespace, profile: Profile) -> Size:
    """The profile's load, with what the command line says in its place."""
    return Size(
        rate=options.rate or profile.rate,
        users=options.users or profile.users,
        seconds=options.seconds or profile.seconds,
        workers=options.workers,
        remote_workers=options.remote_workers,
    )


def problem_with(options: argparse.Namespace) -> str:
    """What is wrong with the words beyond their form; empty when nothing is."""
    if not options.url and (options.key or options.direct_url or options.neighbours_key or options.remote_workers):
        return "--key, --neighbours-key, --direct-url and --remote-workers go with --url"
    if options.url and (BY_NAME[options.profile].fails or BY_NAME[options.profile].quota):
        needs = "a simulated provider that fails" if BY_NAME[options.profile].fails else "keys whose quotas it knows"
        return f"{options.profile} needs {needs}, so it runs on a gateway of its own: leave --url out"
    if options.url and BY_NAME[options.profile].quiet_users and not options.neighbours_key:
        return "noisy_neighbour needs --neighbours-key beside --key"
    return ""


@dataclass(frozen=True)
class Run:
    """A profile, how much of it, by whom, in which folder; `watch` sees what others take, where all is ours."""

    profile: Profile
    size: Size
    locust: str
    folder: Path
    watch: Callable[[], disturbance.Watch] | None = None
    remarks: list[str] = field(default_factory=list)

    def against(self, what: str, host: str, orders: Orders, classes: Sequence[str] = ()) -> Outcome:
        """One run of Locust."""
        print(f"{self.profile.name}: {self.size.seconds:g} s {what}", file=sys.stderr)
        words = drive.command(self.locust, self.profile, host, self.size, classes)
        self._call_workers(orders)
        with self._watched(what):
            return drive.run(words, orders, self.size, self.folder, CLIENT_CORE)

    @contextmanager
    def _watched(self, what: str) -> Generator[None, None, None]:
        """What others took while the block ran is remarked, if it was too much."""
        watch = self.watch() if self.watch else None
        if watch is None:
            yield
            return
        watch.look()
        yield
        watch.look()
        if (found := watch.found()).too_much:
            self.remarks.append(f"- {what}: {disturbance.told(found)}; a latency may be theirs")

    def page(self, host: str, orders: Orders) -> None:
        """Locust's web page, until Ctrl-C; nothing is judged."""
        words = drive.web_command(self.locust, self.profile, host, self.size)
        self._call_workers(orders)
        told = f"{self.profile.name}: http://{drive.WEB_HOST}:{drive.WEB_PORT}, in front of {host}; Ctrl-C ends it"
        with suppress(KeyboardInterrupt):
            drive.serve(words, orders, self.folder, CLIENT_CORE, lambda: print(told, file=sys.stderr))

    def _call_workers(self, orders: Orders) -> None:
        """Where others are to bring the load, tell what they are to be started with."""
        if self.size.remote_workers:
            hidden = replace(orders, key="KEY", neighbours_key="NEIGHBOURS_KEY")  # a terminal is no place for keys
            print(f"waiting for {self.size.remote_workers} workers; BENCH_ORDERS='{hidden.written()}'", file=sys.stderr)

    def compared(self, orders: Orders, gateway: str, direct: str | None) -> tuple[Outcome | None, Outcome]:
        """The run to compare with, and the one that is judged."""
        if self.profile.quiet_users:
            half = replace(
                self, size=replace(self.size, users=max(1, self.size.users // 2))
            )  # the others are the flood
            before = half.against("without the neighbour", gateway, orders, self.profile.quiet_users)
            return before, self.against("beside the neighbour", gateway, orders)
        alone = self.against("in front of the provider", direct, orders) if direct else None
        return alone, self.against("through the gateway", gateway, orders)

    def on(self, raised: Stage, orders: Orders) -> list[Finding]:
        """On a gateway of our own."""
        direct, gateway = raised.sims[0].url, f"http://127.0.0.1:{raised.gateway.port}"
        if self.profile.quiet_users:
            return judge.judge(self.profile, self.size, *self.compared(orders, gateway, None))
        before = self.against("in front of the provider", direct, orders)
        watch = Watch(raised.gateway)
        with watch.watching(), stage.failing(raised, self.profile, self.size.seconds):
            after = self.against("through the gateway", gateway, orders)
        found = judge.judge(self.profile, self.size, before, after)
        if self.profile.watched:
            found += judge.flat(watch.looks)
        if self.profile.quota:
            found += judge.at_quota(self.size, after)
        if self.profile.governed:
            found += judge.governed(after, books.read(raised.config))
        if self.profile.fails:
            found += judge.healed(raised.sims)
        return found


def orders_of(options: argparse.Namespace, size: Size, raised: Stage | None) -> Orders:
    """Keys are those of our own gateway, or those that were given."""
    return Orders(
        key=raised.key if raised else options.key,
        neighbours_key=raised.neighbours_key if raised else options.neighbours_key,
        patient_key=raised.patient_key if raised else "",
        model=options.model,
        rate_per_user=size.rate / size.users,
    )


def carry_out(options: argparse.Namespace) -> int:
    """Raise what is needed, run, judge, print; CannotRun when something is missing."""
    profile = BY_NAME[options.profile]
    size = size_of(options, profile)
    locust = drive.program(options.locust)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-load-")))
        raised = None if options.url else stack.enter_context(stage.raised(profile, folder))
        orders = orders_of(options, size, raised)
        watch = disturbance.watching(TARGET_CORE, CLIENT_CORE) if raised else None
        run = Run(profile, size, locust, folder, watch)
        if options.web:
            host = f"http://127.0.0.1:{raised.gateway.port}" if raised else options.url
            if raised:
                stack.enter_context(stage.failing(raised, profile, size.seconds, again=True))
            run.page(host, orders)
            return HOLDS
        if raised:
            findings = run.on(raised, orders)
        else:
            findings = judge.judge(profile, size, *run.compared(orders, options.url, options.direct_url))
    print("\n".join([judge.markdown(findings), *([""] if run.remarks else []), *run.remarks]))
    return HOLDS if all(finding.holds for finding in findings) else MISSED


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parsed = parser()
    options = parsed.parse_args(arguments)
    if problem := problem_with(options):
        parsed.error(problem)
    return program.ended("bench.load", lambda: carry_out(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
