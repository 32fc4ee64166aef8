"""What `gateway why` does: it asks the running node, and lays the answer out as a page.

Only the node knows what is left of its limits, so there is nothing to fall back to. The exit code is the verdict: a
script can wait for its turn with it. What is not printable in a name is not printed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.control import client
from gateway.control.limits_question import NAMES, BadQuestion, parse
from gateway.limiter.refusal import usd
from gateway.limiter.rules import PERIODS_MS

TIMEOUT_S: Final = 15.0  # a million keys are looked through in a few seconds
_MS_PER_S: Final = 1000
_WIDEST: Final = 400
_EVERY: Final = {period_ms: name for name, period_ms in PERIODS_MS.items()}

Told = Mapping[str, Any]


def run(given: argparse.Namespace) -> int:
    """Ask and show; the exit code."""
    query = [(name, value) for name in NAMES if (value := getattr(given, name))]
    try:
        parse(query)
        config = load(given.config, given.set)
        told = client.ask(config, "GET", f"/v1/limits/explain?{urlencode(query)}", timeout_s=TIMEOUT_S)
    except BadQuestion as error:
        print(f"gateway: --{_in_our_words(str(error))}", file=sys.stderr)
        return 2
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    except client.AdminUnreachable as error:
        print(f"gateway: only a running node knows what is left of its limits: {error}", file=sys.stderr)
        return 1
    except client.AdminRefused as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told, indent=2) if given.json else "\n".join(page(told)))
    return 0 if told["admitted"] else 1


def page(told: Told) -> Iterator[str]:
    """The answer, line by line."""
    yield from _head(told)
    yield ""
    yield _verdict(told)
    yield ""
    if not told["limits"]:
        yield f"no limits apply to key {_text(told['key']['id'])} there"
        return
    yield "limits, what binds first:"
    for row in told["limits"]:
        yield f"  {_mark(row)} {_text(row['said'])}"
        yield f"      {'; '.join(_details(row))}"


def _head(told: Told) -> Iterator[str]:
    key, request = told["key"], told["request"]
    whose = ", ".join(f"{name} {key[name]}" for name in ("org", "team", "user", "role") if key[name])
    yield _text(f"key      {key['id']}" + (f" ({whose})" if whose else ""))
    asked = f"{request['model']}, entry {told['model']}" if told["model"] else "none"
    data_class = f"; data class {told['data_class']}" if told["data_class"] else ""
    yield _text(f"model    {asked}; path {request['path']}; route {told['route']}{data_class}")
    cost = f", {usd(request['cost_microusd'])}" if request["cost_microusd"] else ""
    yield f"request  {request['input_tokens']} tokens, and {request['output_tokens']} of its answer{cost}"
    for at, target in enumerate(told["targets"]):
        yield _text(f"{'targets' if not at else '':<8} {target['target']}{_role(target)}: {_price(target['price'])}")


def _role(target: Told) -> str:
    said = [name for name, holds in (("fallback", target["fallback"]), ("weight 0", not target["weight"])) if holds]
    return f" ({', '.join(said)})" if said else ""


def _price(price: Told | None) -> str:
    """Per million tokens."""
    if price is None:
        return "unpriced"
    rates = price["usd_per_mtok"]
    dearer = "".join(f", above {band['input_tokens']} tokens {_usd(band['usd_per_mtok'])}" for band in price["above"])
    return f"{_usd(rates)} per million tokens{dearer} ({price['source']})"


def _usd(rates: Told) -> str:
    return f"{rates['input']:g} USD in, {rates['output']:g} USD out"


def _verdict(told: Told) -> str:
    refused = told["refused"]
    if refused is None:
        return "admitted: such a request would pass its limits now"
    return _text(f"refused: {refused['status']} {refused['code']}: {refused['message']}")


def _mark(row: Told) -> str:
    """A sign by which the eye finds what refuses."""
    return "✗" if row["refuses"] else "~" if row["shadow"] else "✓"


def _details(row: Told) -> Iterator[str]:
    yield f"bucket {_text(row['bucket'])}"
    if row["provider"] is not None:
        yield f"of attempts at {_text(row['provider'])}"
    if row["refill"] is not None:
        yield f"refills {_amount(row, 'refill')} every {_EVERY[row['refill_ms']]}"
    if row["window_end_ms"] is not None:
        yield f"from {_moment(row['window_start_ms'])} to {_moment(row['window_end_ms'])}"
    if row["kind"] == "slots":
        yield f"{row['capacity'] - row['level']} in flight"
    elif row["reserved"]:
        yield f"{_amount(row, 'reserved')} reserved by requests in flight"
    if row["estimated"]:
        yield f"{_amount(row, 'estimated')} charged as estimated, to be settled from the journal"
    if row["max_debt"] is None:
        yield "how far into debt is not known"
    elif row["max_debt"]:
        yield f"at most {_amount(row, 'max_debt')} of debt"


def _amount(row: Told, name: str) -> str:
    value = row[name]
    return usd(value) if row["unit"] == "microusd" else f"{value:.13g}"


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // _MS_PER_S, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(text: str) -> str:
    """A name on a terminal: nothing in it may move the cursor."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= _WIDEST else shown[:_WIDEST] + "…"


def _in_our_words(message: str) -> str:
    """What the API calls `output_tokens` is `--output-tokens` here."""
    name, rest = message.split(":", 1)
    return f"{name.replace('_', '-')}:{rest}"
