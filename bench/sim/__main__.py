"""The command `python -m bench.sim`: options in, one line on stdout when ready, a quiet end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.sim import faults, parent, script
from bench.sim.app import App
from bench.sim.server import Server, tls_context

if TYPE_CHECKING:
    import ssl

try:
    from uvloop import new_event_loop
except ImportError:  # slower, otherwise the same
    from asyncio import new_event_loop  # type: ignore[assignment]

EPILOG = """\
One answer can be told how to behave:
  header      x-sim: status=503; retry-after=2
  model name  {"model": "sim-echo+truncate=5+token-ms=20"}
  script      rules: [{match: {path: /v1/chat/*, nth: 2}, behave: {reset: content}}]
What was seen:  GET /__sim/requests    Forget it:  POST /__sim/reset    New script:  POST /__sim/script
Every behaviour, with an example: docs/sim.md
"""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, parsed. Exits on a mistake in it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.sim",
        description="A simulated provider: OpenAI and Anthropic wire formats, no model, faults on demand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    add("--script", type=Path, metavar="FILE", help="YAML rules: which requests get which answers")
    add("--behave", default="", metavar="SPEC", help='behaviour of every answer, e.g. "tps=50; ping=2"')
    add("--ttft-ms", metavar="MS", help="wait before the first byte of each answer")
    add("--token-ms", metavar="MS", help="wait between the events of a stream")
    add("--tokens", metavar="N", help="length of each answer in tokens")
    add("--api-key", metavar="K", help="answer 401 to any other key")
    add("--tls-cert", metavar="FILE", help="serve https with this certificate chain")
    add("--tls-key", metavar="FILE", help="and this private key")
    add("--tls-client-ca", metavar="FILE", help="and require client certificates signed by this CA")
    add("--quiet", action="store_true", help="no line on stderr for each request")
    add(
        "--exit-with-parent",
        nargs="?",
        const=os.getppid(),
        type=int,
        metavar="PID",
        help="stop when the parent process ends (PID: the parent, if it may be gone before we look)",
    )
    return parser.parse_args(arguments)


def build(given: argparse.Namespace) -> Server:
    """The server these options describe. Raises BadBehaviour, BadScript, OSError."""
    flags = {"ttft-ms": given.ttft_ms, "token-ms": given.token_ms, "tokens": given.tokens}
    defaults = faults.from_mapping({name: value for name, value in flags.items() if value is not None})
    rules = script.load(given.script) if given.script else script.Script()
    app = App(rules, {**faults.parse(given.behave), **defaults}, given.api_key)
    return Server(app, quiet=given.quiet)


def tls(given: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context these options describe, if they do. Raises ValueError, OSError, ssl.SSLError."""
    if not (given.tls_cert or given.tls_key or given.tls_client_ca):
        return None
    if not (given.tls_cert and given.tls_key):
        raise ValueError("TLS needs both --tls-cert and --tls-key")
    return tls_context(given.tls_cert, given.tls_key, given.tls_client_ca)


async def serve(server: Server, given: argparse.Namespace) -> None:
    """Listen, say so, and serve until a signal or the parent's end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if given.exit_with_parent:
        parent.watch(given.exit_with_parent, stop.set)
    await server.start(given.host, given.port, tls(given))
    print(f"sim listening on {server.url}", flush=True)
    await stop.wait()
    await server.stop()


def _raise_descriptor_limit() -> None:
    """Ten thousand streams need as many descriptors; what the hard limit allows is ours to take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 after a signal, 2 for options or files that are wrong."""
    given = options(arguments)
    _raise_descriptor_limit()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(build(given), given))
    except (ValueError, OSError) as error:  # ssl.SSLError is an OSError; BadScript and BadBehaviour are ValueErrors
        print(f"sim: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
