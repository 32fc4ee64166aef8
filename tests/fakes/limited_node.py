"""Limits on a running gateway as its callers and its journal tell of them.

    with limited(rules=[rule("tokens", per=["key"], tokens=10_000, budget=True)], keys=[caller("ann")]) as node:
        answer = node.post(CHAT, tiny("ann"), key=secret("ann"))
        left(answer)          what the headers say remains
        settled(node, answer) what the journal says was taken, and what it came to

Rules are of a month: a budget does not refill, and a rate of so little that no test sees a whole unit of it come back.
So levels can be told to the unit, and compared with the sum of what the journal says.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import yaml

from gateway.journal import layout
from gateway.journal.read import entries
from gateway.record import Kind, Record
from tests.fakes.gateway_node import CONFIG, GatewayNode, chat_body, running
from tests.fakes.wire_client import Answer, Call

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
QUIET: dict[str, Any] = {"log": {"requests": "none"}}


class Told(NamedTuple):
    """One exchange by its records; amounts are by the names of rules. `settled` None: no outcome yet."""

    key: str
    held: dict[str, int]
    settled: dict[str, int] | None
    outcome: Record | None


# --- the node ---------------------------------------------------------------------------------------------------------


@contextmanager
def limited(
    *,
    rules: Sequence[Mapping[str, Any]] = (),
    keys: Sequence[Mapping[str, Any]] = (),
    workers: int = 1,
    limits: Mapping[str, Any] | None = None,
    **config: Any,
) -> Iterator[GatewayNode]:
    """A gateway with these rules and callers beside those it always has; a store may be late on a busy machine."""
    given = {"limits": {**(limits or {}), "rules": list(rules)}, "keys": [*CONFIG["keys"], *keys], **QUIET, **config}
    with running(given, workers=workers) as node:
        if limits and "store" in limits:
            node.expected.append("the limit store is away")
        yield node


def rule(name: str, **fields: Any) -> dict[str, Any]:
    """A rule of the config; of a month where nothing else is said."""
    return {"name": name, **({} if "in_flight" in fields else {"every": "month"}), **fields}


def caller(name: str, **fields: Any) -> dict[str, Any]:
    """A key of the config; its secret is `secret(name)`."""
    return {"id": name, "secret": secret(name), **fields}


def secret(name: str) -> str:
    """The secret of a caller's key."""
    return f"gw-{name:x<40}"


def rewritten(node: GatewayNode, **changes: Any) -> None:
    """Change the config, and wait until every worker serves by it."""
    node.config = {**node.config, **changes}
    text = yaml.safe_dump(dict(node.config), sort_keys=False)
    node.config_path.write_text(text.replace("@SIM@", node.sim.url))
    before = node.admin("/v1/status").json["generation"]
    os.kill(node.pid, signal.SIGHUP)
    workers = f"{node.config['listen']['workers']} workers"
    node.until(lambda: f"snapshot {before + 1} is in use by all {workers}" in node.log(), "the new config")


# --- calling ----------------------------------------------------------------------------------------------------------


def ask(node: GatewayNode, key: str, model: str = "sim-m+tokens=1", path: str = CHAT, **fields: object) -> Answer:
    """One request of a caller: ten tokens of prompt, and an answer of at most one unless more is asked for."""
    return node.post(path, chat_body(model, **{"max_tokens": 1, **fields}), key=secret(key))


def begun(node: GatewayNode, key: str, model: str, **fields: object) -> Call:
    """A stream whose first content has come; a 503 of a store that was late is tried again."""
    raw = node.request(CHAT, chat_body(model, stream=True, **fields), key=secret(key))
    return node.until(lambda: _begun(node.open(raw)), "a stream")


def _begun(call: Call) -> Call | None:
    if call.head().status == 200:
        next(call.pieces())
        return call
    call.close()
    return None


def together(node: GatewayNode, requests: Iterable[bytes]) -> list[Answer]:
    """Each on a connection of its own, all sent at the same moment."""
    given = list(requests)
    calls = [node.open() for _ in given]
    barrier = threading.Barrier(len(calls))
    answers: list[Answer] = []

    def send(call: Call, raw: bytes) -> None:
        barrier.wait()
        with call:
            call.send(raw)
            answers.append(call.answer())

    threads = [threading.Thread(target=send, args=pair) for pair in zip(calls, given, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(calls)
    return answers


def statuses(answers: Iterable[Answer]) -> dict[int, int]:
    """How many answers of each status there are."""
    found: dict[int, int] = {}
    for answer in answers:
        found[answer.status] = found.get(answer.status, 0) + 1
    return found


def refused_by(answer: Answer) -> str:
    """The name of the limit that a 429 tells, "" for any other answer."""
    if answer.status != 429:
        return ""
    message: str = answer.json["error"]["message"]
    return message.removeprefix("the limit ").split()[0]


Step = tuple[str, str, dict[str, Any], str]
"""Who asks, for which model, with which more fields, and the limit that refuses it, "" for none."""


def play(node: GatewayNode, steps: Iterable[Step]) -> None:
    """Ask one after the other; each is answered, or refused by the limit that was expected."""
    for index, (who, model, fields, refused) in enumerate(steps):
        answer = ask(node, who, model, **fields)
        assert answer.status == (429 if refused else 200), (index, answer)
        assert refused_by(answer) == refused, (index, answer)


def left(answer: Answer, kind: str = "tokens") -> int:
    """What remains by the headers of OpenAI."""
    return int(answer.header(f"x-ratelimit-remaining-{kind}"))


# --- what is recorded -------------------------------------------------------------------------------------------------


def recorded(node: GatewayNode) -> dict[str, Told]:
    """All limited exchanges that have a decision, by their ids."""
    journal = layout.journal_of(node.directory / "state")
    decisions: dict[str, Record] = {}
    outcomes: dict[str, Record] = {}
    for chain in layout.chains(journal):
        for entry in entries(journal, chain):
            record = entry.record
            if record.exchange_id:
                found = decisions if record.kind is Kind.DECISION else outcomes
                assert record.exchange_id not in found, f"two records of {record.exchange_id}"
                found[record.exchange_id] = record
    return {name: _told(decision, outcomes.get(name)) for name, decision in decisions.items() if decision.hold_id}


def settled(node: GatewayNode, answer: Answer | str) -> Told:
    """What was taken for an exchange and settled, once it is."""
    name = answer if isinstance(answer, str) else answer.header("x-request-id")
    return node.until(lambda: _ended(recorded(node).get(name)), f"the outcome of {name}")


def ended(node: GatewayNode, key: str, number: int) -> list[Told]:
    """The exchanges of a caller, once so many have ended."""

    def all_in() -> list[Told] | None:
        found = [told for told in recorded(node).values() if told.key == key and told.outcome is not None]
        return found if len(found) >= number else None

    return node.until(all_in, f"{number} outcomes of {key}")


def balance(node: GatewayNode, key: str, limit: str, capacity: int, path: str = CHAT) -> int:
    """What is left of a token budget of a key before a request that asks for it, which costs some itself.

    It must be what the journal says: the capacity, less what was settled, and less what is held and not settled.
    """
    before, told = _probed(node, key, limit, capacity, path)
    assert before == told, f"{before} are left, the journal says {told} of {capacity}"
    return before


def balanced(node: GatewayNode, key: str, limit: str, capacity: int) -> None:
    """As `balance`, where it is counted in a store: what was late may still be on its way, and is waited for."""

    def equal() -> bool:
        before, told = _probed(node, key, limit, capacity, CHAT)
        return before == told

    node.until(equal, f"the balance of {limit}")


def _probed(node: GatewayNode, key: str, limit: str, capacity: int, path: str) -> tuple[int, int]:
    """What is left by the headers of a request, and what must be by the journal."""
    asked = ask(node, key, path=path)
    if asked.status != 200:
        return -1, capacity
    own = settled(node, asked)
    others = [told for name, told in recorded(node).items() if told.key == key and name != asked.header("x-request-id")]
    used = sum((told.held if told.settled is None else told.settled).get(limit, 0) for told in others)
    return left(asked) + own.held[limit], capacity - used


def _ended(told: Told | None) -> Told | None:
    return told if told is not None and told.outcome is not None else None


def _told(decision: Record, outcome: Record | None) -> Told:
    settled_amounts = None if outcome is None else _by_rule(outcome.settled_amounts)
    return Told(decision.key_id, _by_rule(decision.hold_amounts), settled_amounts, outcome)


def _by_rule(amounts: Mapping[str, int]) -> dict[str, int]:
    """Amounts by rule, or by `rule@provider` for those of attempts."""
    found: dict[str, int] = {}
    for name, amount in amounts.items():
        parts = name.split("|")
        at = next((part.removeprefix("provider=") for part in parts if part.startswith("provider=")), "")
        found[f"{parts[0]}@{at}" if at else parts[0]] = amount
    return found
