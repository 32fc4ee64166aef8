"""nginx as the bench runs it: one worker, keep-alive on both sides, no log of requests; TLS on either side if asked.

It is the target that everything is compared with and, on the callers' core, what speaks TLS for the native programs.
Each has three ports: answers are buffered at one and pass as they come at another, nginx's best setting for plain
requests and for streams; at the third each request makes a new connection behind nginx, and a whole handshake.
"""

import grp
import os
import pwd
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.speed import launch
from bench.speed.certificates import SERVER_NAME, Certificates
from bench.speed.launch import CannotRun, Process

_CONF: Final = """
{user}
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_buffer_size 1m;
  client_max_body_size 64m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream plain {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream streams {{ server 127.0.0.1:{upstream_streams}; keepalive 1024; keepalive_requests 1000000000; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_read_timeout 3600s;
  {tls}
  server {{ listen 127.0.0.1:{port} {listen}; location / {{ proxy_pass {scheme}://plain; }} }}
  server {{
    listen 127.0.0.1:{stream_port} {listen};
    location / {{ proxy_pass {scheme}://streams; proxy_buffering off; }}
  }}
  server {{
    listen 127.0.0.1:{anew_port} {listen};
    location / {{
      proxy_pass {scheme}://127.0.0.1:{upstream};
      proxy_set_header Connection close;
      proxy_ssl_session_reuse off;
    }}
  }}
}}
"""
_TLS_IN: Final = "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"
_TLS_OUT: Final = (
    "proxy_ssl_trusted_certificate {ca_file}; proxy_ssl_verify on; proxy_ssl_name {name}; proxy_ssl_server_name on;"
    " proxy_ssl_protocols TLSv1.2 TLSv1.3;"
)


@dataclass(frozen=True)
class Ways:
    """An nginx in front of an upstream's ports, and with whom it speaks TLS: with these certificates, or not at all."""

    upstream_port: int
    upstream_stream_port: int
    descriptors: int
    callers: Certificates | None = None
    upstream: Certificates | None = None


@dataclass(frozen=True)
class Nginx:
    """One that runs."""

    process: Process
    port: int
    stream_port: int
    anew_port: int


def config(ways: Ways, folder: Path, ports: tuple[int, int, int]) -> str:
    """The whole nginx.conf; what it needs to write lies in `folder`."""
    tls = []
    if ways.callers:
        tls.append(_TLS_IN.format(cert=ways.callers.cert, key=ways.callers.key))
    if ways.upstream:
        tls.append(_TLS_OUT.format(ca_file=ways.upstream.ca_file, name=SERVER_NAME))
    port, stream_port, anew_port = ports
    return _CONF.format(
        user=_user(),
        descriptors=ways.descriptors,
        # nginx sheds idle callers when a sixteenth of this is left; descriptors are the limit that is meant.
        connections=2 * ways.descriptors,
        folder=folder,
        upstream=ways.upstream_port,
        upstream_streams=ways.upstream_stream_port,
        tls=" ".join(tls),
        listen="ssl backlog=4096" if ways.callers else "backlog=4096",
        scheme="https" if ways.upstream else "http",
        port=port,
        stream_port=stream_port,
        anew_port=anew_port,
    )


@contextmanager
def started(name: str, ways: Ways, folder: Path, core: int | None) -> Generator[Nginx, None, None]:
    """One in the foreground, ready; CannotRun if there is none, or it does not start."""
    nginx = launch.program("nginx")
    if nginx is None:
        raise CannotRun("nginx is missing; on Debian: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    ports = (launch.free_port(), launch.free_port(), launch.free_port())
    path = folder / "nginx.conf"
    path.write_text(config(ways, folder, ports))
    command = [nginx, "-p", str(folder), "-c", str(path), "-g", "daemon off;"]
    with launch.started(name, command, core=core, log=folder / "log") as process:
        process.wait_for("open port", lambda: launch.accepts(ports[0]))
        yield Nginx(process, *ports)


def _user() -> str:
    """As root its worker would become `nobody`, who may not enter our folder; otherwise the directive is ignored."""
    if os.geteuid() != 0:
        return ""
    entry = pwd.getpwuid(os.geteuid())
    return f"user {entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name};"
