"""nginx speaks TLS on the sides that it is asked to, and verifies whom it connects to."""

from pathlib import Path

import pytest

from bench.speed import launch, nginx
from bench.speed.certificates import Certificates
from bench.speed.launch import CannotRun
from bench.speed.nginx import Ways

FOLDER = Path("/nowhere")
MADE = Certificates(FOLDER / "ca.pem", FOLDER / "server.pem", FOLDER / "server.key")


def config(callers: Certificates | None = None, upstream: Certificates | None = None) -> str:
    return nginx.config(Ways(9000, 9001, 20_000, callers, upstream), FOLDER, (1, 2, 3))


def test_without_certificates_nothing_is_said_over_tls() -> None:
    plain = config()
    assert "listen 127.0.0.1:1 backlog=4096;" in plain
    assert "https" not in plain
    assert "ssl_certificate" not in plain
    assert "worker_connections 40000;" in plain


def test_with_them_every_port_of_the_callers_side_speaks_it() -> None:
    one = config(callers=MADE)
    assert [f"127.0.0.1:{port} ssl backlog=4096;" in one for port in (1, 2, 3)] == [True] * 3
    assert "ssl_certificate /nowhere/server.pem; ssl_certificate_key /nowhere/server.key;" in one
    assert "https" not in one


def test_an_upstream_over_tls_is_verified_by_name() -> None:
    one = config(upstream=MADE)
    assert one.count("proxy_pass https://") == 3
    assert "proxy_ssl_trusted_certificate /nowhere/ca.pem; proxy_ssl_verify on; proxy_ssl_name localhost;" in one
    assert " ssl " not in one


def test_a_machine_without_nginx_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "program", lambda _: None)
    with (
        pytest.raises(CannotRun, match="apt-get install nginx-light"),
        nginx.started("nginx", Ways(9000, 9000, 1000), tmp_path, 0),
    ):
        pass
