"""What a refusal by a limit must say, as a caller reads it: status, error, what is left, and when to come back.

Pure; knows nothing of sockets. `problem` tells in words what is wrong, since a fast 429 that says nothing is worth
little to who has to wait.
"""

import json
from collections.abc import Mapping
from typing import Any

TOO_MANY = 429
MS_PER_S = 1000


def wait_ms(headers: Mapping[str, str]) -> int:
    """How long to wait, 0 where that is not said in milliseconds."""
    said = headers.get("retry-after-ms") or ""
    return int(said) if said.isascii() and said.isdigit() else 0


def problem(headers: Mapping[str, str], content: bytes, rule: str) -> str:
    """What is wrong with a 429 by the limit `rule` on requests; empty when nothing is."""
    waits_ms = wait_ms(headers)
    if waits_ms < 1:
        return f"retry-after-ms: {headers.get('retry-after-ms')!r}"
    if headers.get("retry-after") != str(-(-waits_ms // MS_PER_S)):
        return f"retry-after {headers.get('retry-after')!r} beside {waits_ms} ms"
    if headers.get("x-ratelimit-remaining-requests") != "0":
        return f"refused with {headers.get('x-ratelimit-remaining-requests')!r} requests remaining"
    return _error_problem(content, rule)


def _error_problem(content: bytes, rule: str) -> str:
    try:
        error: Mapping[str, Any] = json.loads(content)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        return f"no error object: {content[:100]!r}"
    if code != "rate_limit_exceeded":
        return f"the error's code is {code!r}"
    return "" if rule in message else f"the message does not name the limit {rule}: {message!r}"
