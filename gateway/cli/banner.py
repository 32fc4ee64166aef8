"""What a person sees at start: where the gateway listens, what it serves, and a request to paste.

The request holds a working key, so it is printed only where it was asked for (`make run`, `--curl`), never to a log.
Working means now: not disabled, expired or revoked, and allowed to use the model in the request. Keys made while the
gateway runs are not looked at: only their digests are known.
"""

import shlex
import time
from typing import NamedTuple, TextIO

from gateway import __version__
from gateway.config import patterns
from gateway.config.keys import HASHED
from gateway.config.revocations import Revocations
from gateway.config.schema import Config, Key


class _Pair(NamedTuple):
    """What a request needs: a secret, and a model that it opens."""

    secret: str
    model: str


def show(config: Config, port: int, admin_port: int, *, with_curl: bool, out: TextIO) -> None:
    """Write the banner to a terminal, and the request to paste wherever it was asked for."""
    if out.isatty() or with_curl:
        out.write(_banner(config, port, admin_port))
    if with_curl:
        out.write(_curl(config, port))
    out.flush()


def _banner(config: Config, port: int, admin_port: int) -> str:
    admin = f"http://{_host(config.admin.host)}:{admin_port}" if config.admin is not None else "none"
    models = ", ".join(list(config.models)[:8]) + (" …" if len(config.models) > 8 else "")  # noqa: PLR2004
    return (
        f"\n  Sluice {__version__}\n"
        f"  data    {_base(config, port)}   {config.listen.worker_count} workers\n"
        f"  admin   {admin}\n"
        f"  models  {models or 'none: add some under `models:`'}\n"
    )


def _curl(config: Config, port: int) -> str:
    pair = _working_pair(config)
    if pair is None:
        return "\n  no request to paste: no key of the config has a plain secret, is valid now and may use a model\n\n"
    secret, model = pair
    dialects = {config.providers[target.provider].kind for target in config.models[model].targets}
    path = "/v1/messages" if dialects == {"anthropic"} else "/v1/chat/completions"
    limit = '"max_tokens":256,' if path == "/v1/messages" else ""
    lines = [
        '\n  try it (add -N and "stream":true to watch it arrive):\n',
        f"curl {_base(config, port)}{path} \\",
        f"  -H {shlex.quote('authorization: Bearer ' + secret)} \\",
        "  -H 'content-type: application/json' \\",
        f'  -d \'{{"model":"{model}",{limit}"messages":[{{"role":"user","content":"Say hello"}}]}}\'',
        "",
        "",
    ]
    return "\n".join(lines)


def _working_pair(config: Config) -> _Pair | None:
    """The first key that works, with the first model that it may use."""
    try:
        revoked = Revocations(config.state_dir).read()
    except OSError:
        return None  # what cannot be read may revoke any of them
    for key in config.keys:
        if key.id not in revoked and _usable(key):
            for model in config.models:
                if not model.endswith("*") and any(patterns.matches(pattern, model) for pattern in key.models):
                    return _Pair(key.secret.reveal(), model)
    return None


def _usable(key: Key) -> bool:
    expired = key.expires_at is not None and key.expires_at.timestamp() <= time.time()
    return not (key.disabled or expired or key.secret.reveal().startswith(HASHED))


def _base(config: Config, port: int) -> str:
    scheme = "https" if config.listen.tls is not None else "http"
    return f"{scheme}://{_host(config.listen.host)}:{port}"


def _host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - only shown
    return f"[{shown}]" if ":" in shown else shown
