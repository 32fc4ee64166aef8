"""The examples in systemd/ for a balancer in front: accepted by the programs they are for, and true to their comments.

Each example runs as written, with its addresses replaced, in front of two small nodes that speak just enough HTTP.
"""

import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fakes.gateway_node import until
from tests.fakes.patience import PATIENCE_S
from tests.fakes.ports import free_port

pytestmark = pytest.mark.slow

UNITS = Path(__file__).parents[2] / "systemd"
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # sbin, where Debian keeps both, is not on every PATH
NGINX_FRAME = """
daemon off; master_process off; pid {here}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;
    uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
    include {here}/sluice.conf;
}}
"""


def program(name: str) -> str:
    found = shutil.which(name, path=PROGRAMS)
    assert found, f"{name} is missing; `make test` installs it as root, else: sudo apt-get install {name}"
    return found


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Node(ThreadingHTTPServer):
    """Answers /readyz by its flag, and any POST with two events, the second when it is let go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), NodeHandler)
        self.ready = True
        self.served = 0
        self.second_event = threading.Event()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class NodeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Node

    def do_GET(self) -> None:
        self.send_response(200 if self.server.ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.server.served += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        if not self.server.ready:
            self.send_header("Connection", "close")  # as a draining gateway does
        self.end_headers()
        self.wfile.write(chunk(b"data: first\n\n"))
        self.server.second_event.wait(PATIENCE_S)
        self.wfile.write(chunk(b"data: second\n\n") + chunk(b""))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        del format, args


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    running = [Node(), Node()]
    for node in running:
        threading.Thread(target=node.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    for node in running:
        node.second_event.set()
        node.stop()


def with_addresses(example: str, nodes: list[Node], port: int) -> str:
    for name, node in zip(("192.0.2.11:8080", "192.0.2.12:8080"), nodes, strict=True):
        assert name in example
        example = example.replace(name, f"127.0.0.1:{node.server_address[1]}")
    example, replaced = re.subn(r"(bind 0\.0\.0\.0:|listen )8000", rf"\g<1>{port}", example)
    assert replaced == 1
    return example


def haproxy(here: Path, nodes: list[Node], port: int) -> list[str]:
    config = here / "haproxy.cfg"
    example = with_addresses((UNITS / "haproxy.cfg").read_text(), nodes, port)
    assert "maxconn 50000" in example
    config.write_text(example.replace("maxconn 50000", "maxconn 100"))  # a test may not have descriptors for more
    return [program("haproxy"), "-db", "-f", str(config)]


def nginx(here: Path, nodes: list[Node], port: int) -> list[str]:
    (here / "sluice.conf").write_text(with_addresses((UNITS / "nginx.conf").read_text(), nodes, port))
    (here / "nginx.conf").write_text(NGINX_FRAME.format(here=here))
    return [program("nginx"), "-e", "stderr", "-p", str(here), "-c", str(here / "nginx.conf")]


Balancer = Callable[[Path, list[Node], int], list[str]]
CHECK: dict[Balancer, str] = {haproxy: "-c", nginx: "-t"}


@contextmanager
def balanced(balancer: Balancer, here: Path, nodes: list[Node]) -> Iterator[int]:
    """The balancer, running and answering, by its port."""
    with (
        free_port() as port,
        (here / "log").open("w") as log,
        subprocess.Popen(balancer(here, nodes, port), stderr=log) as process,
    ):
        try:
            await_answer(port, process, here / "log")
            yield port
        finally:
            process.terminate()


def await_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"no answer on port {port}: {log.read_text()}")


@contextmanager
def ask(port: int) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", body=b"{}")
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


@pytest.mark.parametrize("balancer", [haproxy, nginx])
def test_the_example_is_valid_as_its_program_sees_it(balancer: Balancer, tmp_path: Path, nodes: list[Node]) -> None:
    with free_port() as port:
        command = [*balancer(tmp_path, nodes, port), CHECK[balancer]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("balancer", [haproxy, nginx])
def test_an_event_reaches_the_caller_while_the_answer_is_open(
    balancer: Balancer, tmp_path: Path, nodes: list[Node]
) -> None:
    with balanced(balancer, tmp_path, nodes) as port, ask(port) as response:
        assert response.readline() + response.readline() == b"data: first\n\n"
        for node in nodes:
            node.second_event.set()
        assert response.read() == b"data: second\n\n"


@pytest.mark.parametrize("balancer", [haproxy, nginx])
def test_no_caller_notices_a_node_that_drains_and_stops(balancer: Balancer, tmp_path: Path, nodes: list[Node]) -> None:
    for node in nodes:
        node.second_event.set()
    with balanced(balancer, tmp_path, nodes) as port:
        leave = time.monotonic() + 0.5
        end = leave + 4.0
        stopped = False
        while time.monotonic() < end:
            if time.monotonic() > leave:
                nodes[0].ready = False
            if time.monotonic() > leave + 2.6 and not stopped:
                nodes[0].stop()
                stopped = True
            with ask(port) as response:
                assert (response.status, response.read()) == (200, b"data: first\n\ndata: second\n\n")
            time.sleep(0.005)
    assert stopped
    assert min(node.served for node in nodes) > 10


def test_haproxy_leaves_a_node_that_is_not_ready_before_it_stops_accepting(tmp_path: Path, nodes: list[Node]) -> None:
    nodes[0].ready = False
    for node in nodes:
        node.second_event.set()
    with balanced(haproxy, tmp_path, nodes) as port:
        until(lambda: served_by(nodes[0], port) == 0, "haproxy to leave it, after two failed checks")


def served_by(node: Node, port: int) -> int:
    """How many of the next twenty requests a node has, which accepts all the while."""
    node.served = 0
    for _ in range(20):
        with ask(port) as response:
            assert response.read()
    return node.served
