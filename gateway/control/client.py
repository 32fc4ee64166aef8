"""The command line's way to a running node: one request to its admin API, or the config where none answers.

Used by `gateway targets` and the like. Synchronous and small: it runs once and exits. No proxy is used, and the
token goes to the address in the config only.
"""

import http.client
import json
from typing import Any, Final, NamedTuple

from gateway.config.schema import Config
from gateway.control import views

TIMEOUT_S: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listening there is reached here
_OK: Final = 200


class AdminUnreachable(Exception):
    """No admin API answers where the config says it is; the message says what happened."""


class AdminRefused(Exception):
    """The admin API answered with an error; the message is its own."""


class Targets(NamedTuple):
    """Providers and targets; `live` when a running node told, with its attempts so far."""

    content: dict[str, Any]
    live: bool


def targets(config: Config) -> Targets:
    """What `gateway targets` shows: the running node's word, or the config's. Raises AdminRefused."""
    try:
        return Targets(ask(config, "GET", "/v1/targets"), live=True)
    except AdminUnreachable:
        return Targets(views.targets(config, {}), live=False)


def ask(config: Config, method: str, path: str, body: object = None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """One request to the admin API of this config's node, `body` as JSON. Raises AdminUnreachable or AdminRefused.

    Unreachable does not mean undone: an answer that did not come in time may have been under way.
    """
    if config.admin is None or not config.admin.port:
        raise AdminUnreachable("the config has no admin port")
    host = _EVERY_ADDRESS.get(config.admin.host, config.admin.host)
    connection = http.client.HTTPConnection(host, config.admin.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {config.admin.token.reveal()}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        content = json.loads(response.read(MAX_ANSWER_BYTES))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdminUnreachable(f"no admin API at {host}:{config.admin.port}: {error}") from error
    finally:
        connection.close()
    if not isinstance(content, dict):
        raise AdminUnreachable(f"what answers at {host}:{config.admin.port} is no admin API")
    if response.status != _OK:
        raise AdminRefused(str(content.get("error", {}).get("message", response.reason)))
    return content
