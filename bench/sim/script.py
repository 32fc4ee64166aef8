r"""Scripts: rules that match requests and say how to answer them, tried in order, first match wins.

    defaults: ttft-ms=20; token-ms=5
    rules:
      - match: {path: /v1/chat/*, model: gpt-4*, prompt: "*weather*", nth: 2}
        behave: {status: 429, retry-after: 3}
      - match: {model: canned}
        text: Always this sentence.
      - match: {path: /v1/responses}
        reply: {sse: "data: {}\n\n"}

Patterns are shell globs. A rule counts the requests its other conditions match, and `nth` picks among them: a
number, a list of numbers, "3+" (the third and all after) or "every 3". Counters are the only state here.

A `reply` is served as its bytes stand: `body` (a string, or JSON for anything else), `file`, `sse` (a string cut
into events at its empty lines, so that faults and pacing can count them) or `raw` (status line and all, one
character a byte, then FIN). Files are read when the script is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import orjson
import yaml

from bench.sim.faults import BadBehaviour, Settings, from_mapping, parse
from bench.sim.wire import Event, Headers, Kind, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

STATUSES = range(200, 600)
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_RULE_KEYS = {"match", "behave", "text", "reply"}
_MATCH_KEYS = {"path", "model", "prompt", "method", "nth"}
_REPLY_KEYS = {"status", "headers", "body", "file", "sse", "raw"}


class BadScript(ValueError):
    """The script is not of the form above; the message names the rule and the part."""


@dataclass(slots=True)
class Rule:
    """One rule: glob conditions by name, which matches it takes, and what it answers."""

    globs: Mapping[str, str]
    takes: Callable[[int], bool]
    settings: Settings
    text: str | None = None
    canned: Canned | None = None
    seen: int = 0

    def matches(self, facts: Mapping[str, str]) -> bool:
        """Whether the request fits; counts it if all but `nth` does."""
        if not all(fnmatchcase(facts.get(name, ""), glob) for name, glob in self.globs.items()):
            return False
        self.seen += 1
        return self.takes(self.seen)


@dataclass(frozen=True, slots=True)
class Canned:
    """A fixed answer: exactly these bytes."""

    status: int
    headers: Headers
    body: bytes
    sse: bool
    raw: bool

    def reply(self) -> Reply:
        """A fresh reply of it."""
        body: bytes | Iterator[Event] = self.body
        if self.sse or self.raw:
            body = (Event(Kind.CONTENT, part) for part in (split_events(self.body) if self.sse else [self.body]))
        return Reply(self.status, list(self.headers), body, sse=self.sse, raw=self.raw, exact=True)


@dataclass(slots=True)
class Script:
    """The rules in force, and the settings that stand behind them all."""

    rules: list[Rule] = field(default_factory=list)
    defaults: Settings = field(default_factory=dict)

    def match(self, facts: Mapping[str, str]) -> Rule | None:
        """The first rule that takes a request with these facts (path, model, prompt, method)."""
        return next((rule for rule in self.rules if rule.matches(facts)), None)


def split_events(body: bytes) -> Iterator[bytes]:
    """The bytes, cut behind each empty line; joined they are the body again."""
    at = 0
    for match in _EVENT_END.finditer(body):
        yield body[at : match.end()]
        at = match.end()
    if at < len(body):
        yield body[at:]


def load(path: Path) -> Script:
    """The script in a YAML file; `file` entries are relative to it. Raises BadScript, OSError."""
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadScript(f"{path}: not YAML: {error}") from None
    return build(document or {}, path.parent)


def build(document: object, folder: Path | None = None) -> Script:
    """A script from its parsed form. Without a folder (a script sent over HTTP), `file` is refused."""
    known = _known(document, {"defaults", "rules"}, "script")
    rules = [] if known.get("rules") is None else known["rules"]
    if not isinstance(rules, list):
        raise BadScript("script: rules is not a list")
    built = [_rule(rule, f"rule {number}", folder) for number, rule in enumerate(rules, 1)]
    return Script(built, _settings(known.get("defaults"), "defaults"))


def _known(value: object, keys: set[str], where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadScript(f"{where}: not a mapping")
    if strange := {str(key) for key in value} - keys:
        raise BadScript(f"{where}: unknown {', '.join(sorted(strange))}; known: {', '.join(sorted(keys))}")
    return value


def _settings(value: object, where: str) -> Settings:
    try:
        if isinstance(value, dict):
            return from_mapping(value)
        return parse(value) if isinstance(value, str) else {}
    except BadBehaviour as error:
        raise BadScript(f"{where}: {error}") from None


def _rule(value: object, where: str, folder: Path | None) -> Rule:
    known = _known(value, _RULE_KEYS, where)
    match = _known(known.get("match") or {}, _MATCH_KEYS, f"{where}: match")
    globs = {name: str(glob) for name, glob in match.items() if name != "nth"}
    text = known.get("text")
    canned = _canned(known["reply"], f"{where}: reply", folder) if "reply" in known else None
    return Rule(
        globs,
        _takes(match.get("nth"), where),
        _settings(known.get("behave"), where),
        None if text is None else str(text),
        canned,
    )


def _takes(nth: object, where: str) -> Callable[[int], bool]:
    if nth is None:
        return lambda _: True
    if isinstance(nth, int | list):
        wanted = nth if isinstance(nth, list) else [nth]
        return lambda number: number in wanted
    if found := re.fullmatch(r"(\d+)\+", str(nth)):
        first = int(found[1])
        return lambda number: number >= first
    if found := re.fullmatch(r"every ([1-9]\d*)", str(nth)):
        step = int(found[1])
        return lambda number: number % step == 0
    raise BadScript(f'{where}: nth is {nth!r}; write 2, [1, 3], "3+" or "every 3"')


def _canned(value: object, where: str, folder: Path | None) -> Canned:
    known = _known(value, _REPLY_KEYS, where)
    sources = [name for name in ("body", "file", "sse", "raw") if name in known]
    if len(sources) > 1:
        raise BadScript(f"{where}: only one of {', '.join(sources)}")
    source = sources[0] if sources else "body"
    body, kind = _bytes(source, known.get(source, ""), where, folder)
    headers = known.get("headers") or {}
    if not isinstance(headers, dict):
        raise BadScript(f"{where}: headers is not a mapping")
    pairs = [(str(name).lower(), str(text)) for name, text in headers.items()]
    if "content-type" not in dict(pairs):
        pairs.insert(0, ("content-type", kind))
    streamed = dict(pairs)["content-type"].startswith("text/event-stream")
    return Canned(_status(known.get("status", 200), where), pairs, body, streamed, source == "raw")


def _status(value: object, where: str) -> int:
    if not isinstance(value, int) or value not in STATUSES:
        raise BadScript(f"{where}: status is {value!r}; it must be from {STATUSES[0]} to {STATUSES[-1]}")
    return value


def _bytes(source: str, value: object, where: str, folder: Path | None) -> tuple[bytes, str]:
    if source == "raw":
        try:
            return str(value).encode("latin-1"), "application/octet-stream"
        except UnicodeEncodeError:
            raise BadScript(f"{where}: raw has a character above U+00FF; write one character a byte") from None
    if source == "sse":
        return str(value).encode(), "text/event-stream"
    if source == "file":
        if folder is None:
            raise BadScript(f"{where}: file is only for scripts read from disk")
        path = folder / str(value)
        return path.read_bytes(), "text/event-stream" if path.suffix == ".sse" else "application/json"
    return (value.encode() if isinstance(value, str) else orjson.dumps(value)), "application/json"
