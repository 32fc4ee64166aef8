"""What a person sees at start: where the gateway listens, what it serves, and a request to paste.

The request holds a working key, so it is printed only where it was asked for (`make run`, `--curl`), never to a log.
"""

import shlex
from typing import TextIO

from gateway import __version__
from gateway.config.schema import Config, Key

_HASHED = "sha256:"


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
    key = next((key for key in config.keys if _usable(key)), None)
    model = next((name for name in config.models if not name.endswith("*")), None)
    if key is None or model is None:
        return "\n  no request to paste: the config has no key with a plain secret, or no model\n\n"
    dialects = {config.providers[target.provider].kind for target in config.models[model].targets}
    path = "/v1/messages" if dialects == {"anthropic"} else "/v1/chat/completions"
    limit = '"max_tokens":256,' if path == "/v1/messages" else ""
    lines = [
        '\n  try it (add -N and "stream":true to watch it arrive):\n',
        f"curl {_base(config, port)}{path} \\",
        f"  -H {shlex.quote('authorization: Bearer ' + key.secret.reveal())} \\",
        "  -H 'content-type: application/json' \\",
        f'  -d \'{{"model":"{model}",{limit}"messages":[{{"role":"user","content":"Say hello"}}]}}\'',
        "",
        "",
    ]
    return "\n".join(lines)


def _usable(key: Key) -> bool:
    return not key.disabled and not key.secret.reveal().startswith(_HASHED)


def _base(config: Config, port: int) -> str:
    scheme = "https" if config.listen.tls is not None else "http"
    return f"{scheme}://{_host(config.listen.host)}:{port}"


def _host(host: str) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - only shown
    return f"[{shown}]" if ":" in shown else shown
