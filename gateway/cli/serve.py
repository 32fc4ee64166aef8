"""`gateway serve`: the processes of one node, put together from the parts that know nothing of each other."""

import argparse
import asyncio
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from gateway.assemble import Assembly
from gateway.cli import banner
from gateway.config.boot import boot_snapshot
from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config
from gateway.control.main import control_main
from gateway.control.pricing import at_start
from gateway.journal.end import ForeignChain
from gateway.journal.keytable import NoSalt
from gateway.journal.layout import NoJournal
from gateway.journal.opening import Desk, ensure_journal, open_desk
from gateway.journal.recover import NoFreeChain
from gateway.journal.signing import SigningError
from gateway.limiter.mutex import MutexUnsupported
from gateway.limiter.namekey import NoNameKey, name_key, settle_on
from gateway.limiter.opening import WorkerLimits, open_worker_limits
from gateway.limiter.shared import Caretaker, sections
from gateway.listener.worker import DataPlane
from gateway.nodestate import NODE, NodeState
from gateway.process.node import Node
from gateway.process.settings import ServeSettings, StartError
from gateway.process.sockets import port_of
from gateway.process.supervisor import serve
from gateway.process.worker import WorkerContext
from gateway.telemetry.directory import METRICS
from gateway.telemetry.logs import setup_logging
from gateway.telemetry.transfer import import_counters
from gateway.units import NS_PER_US

_log: Final = logging.getLogger("gateway.serve")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; the exit code."""
    overrides = tuple(arguments.set)
    try:
        config = load(arguments.config, overrides)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    if config.admin is None:
        print("gateway: admin.token is missing: the admin port is never served without one", file=sys.stderr)
        return 1
    setup_logging(config.log.level, config.log.format, "supervisor")
    settings = _settings(config, arguments)
    return serve(
        settings,
        partial(_data_plane, config),
        partial(control_main, limits=config.limits),
        publish=partial(_publish, arguments.config, overrides, str(config.state_dir)),
        on_ready=partial(_ready, config, with_curl=arguments.curl),
        import_counters=import_counters,
        caretaker=_LimitTable(config.limits),
    )


class _LimitTable(Caretaker):
    """The shared limits of the node, in the supervisor's hands."""

    def open(self, node: NodeState) -> bool:
        """As `Caretaker`; raises StartError."""
        try:
            return super().open(node)
        except MutexUnsupported as error:
            raise StartError(f"limits: {error}") from error


def _settings(config: Config, arguments: argparse.Namespace) -> ServeSettings:
    listen, admin = config.listen, config.admin
    if admin is None:
        raise StartError("admin.token is missing")
    given = [word for override in arguments.set for word in ("--set", override)]
    return ServeSettings(
        config=arguments.config,
        state_dir=Path(config.state_dir),
        overrides=tuple(arguments.set),
        host=listen.host,
        port=listen.port,
        admin_host=admin.host,
        admin_port=admin.port,
        workers=listen.workers,
        backlog=listen.backlog,
        drain_s=config.drain_s,
        drain_delay_s=config.drain_delay_s,
        stuck_s=config.stuck_s,
        argv=tuple(sys.orig_argv),
        preflight=(sys.executable, "-m", "gateway", "check", "--quiet", "--config", str(arguments.config), *given),
        sections=(NODE, METRICS, *sections(config.limits)),
    )


def _publish(path: str, overrides: tuple[str, ...], state_dir: str) -> int:
    try:
        ensure_journal(Path(state_dir))
        booted = boot_snapshot(path, overrides, state_dir, prices=at_start)
        settle_on(booted.config.limits, Path(state_dir))
    except ConfigProblems as problems:
        raise StartError(str(problems)) from problems
    except OSError as error:
        where = error.filename or state_dir
        raise StartError(
            f"the snapshot or the journal cannot be written: {where}: {error.strerror or error}: a start needs "
            "room there, and the right to write"
        ) from error
    except (NoJournal, SigningError) as error:
        raise StartError(str(error)) from error
    return booted.generation


def _data_plane(config: Config, context: WorkerContext) -> DataPlane:
    sink = setup_logging(config.log.level, config.log.format, f"worker {context.slot}")
    loop = asyncio.get_running_loop()
    sink.attach(loop)
    desk = _desk(config, context)
    if desk is not None:
        desk.journal.start(loop)
    worker_limits = _worker_limits(config, context, desk)
    worker_limits.start()
    assembly = Assembly(
        context.segment, context.state, context.slot, context.settings.state_dir, sink, desk, worker_limits
    )
    return DataPlane(assembly.load, context.state, context.generation)


def _desk(config: Config, context: WorkerContext) -> Desk | None:
    """The worker's place in the journal; without it a worker does not serve, and says why."""
    try:
        return open_desk(config, context.slot, context.segment.slots)
    except (NoJournal, NoFreeChain, ForeignChain, NoSalt, SigningError, OSError) as error:
        _log.error("the journal in %s cannot be opened: %s", config.state_dir, error)
        raise SystemExit(1) from error


def _worker_limits(config: Config, context: WorkerContext, desk: Desk | None) -> WorkerLimits:
    """What the worker counts limits with; it says when the store goes and comes back."""
    was_there = False

    def changed(there: bool, why: str) -> None:  # noqa: FBT001 - as OnChange
        nonlocal was_there
        if there and was_there:
            _log.warning("the limit store is back")
        elif there:
            was_there = True
            _log.info("limits are counted by the store")
        else:
            _log.error("the limit store is away, each limit does as its on_store_failure says: %s", why)
        if desk is not None:
            desk.scribe.mode(
                "limit_store_back" if there else "limit_store_away",
                config.limits.domain,
                why,
                time.time_ns() // NS_PER_US,
            )

    try:
        key = name_key(context.settings.state_dir)
        return open_worker_limits(config.limits, context.segment, context.state, context.slot, changed, name_key=key)
    except NoNameKey as error:
        _log.error("limits: %s", error)
        raise SystemExit(1) from error
    except ValueError as error:
        _log.error("limits.store cannot be used: %s", error)
        raise SystemExit(1) from error


def _ready(config: Config, node: Node, *, with_curl: bool) -> None:
    port = port_of(node.listening.data[0])
    admin_port = port_of(node.listening.admin)
    banner.show(config, port, admin_port, with_curl=with_curl, out=sys.stderr)
    _log.info("ready: data on port %d, admin on port %d", port, admin_port)
