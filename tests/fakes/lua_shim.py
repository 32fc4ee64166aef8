"""The scripts of lua/ in a Lua of our own, over a dictionary, under rules stricter than any store's.

A key that is not among KEYS, a command that is not on the list (KEYS and SCAN are not), a Lua number that leaves a
script, as an argument or as its answer, a global that is unknown (cjson is) or written: each fails. `version` is 51,
the Lua of Redis and Valkey, or 54, Dragonfly's. The clock is `now_ms`, and keys expire by it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import lupa.lua51  # type: ignore[import-untyped]
import lupa.lua54  # type: ignore[import-untyped]

from gateway.limiter.resp import Parser
from gateway.limiter.scripts import Script

RUNTIMES: Mapping[int, Callable[..., Any]] = {51: lupa.lua51.LuaRuntime, 54: lupa.lua54.LuaRuntime}
MAY_USE = b"KEYS ARGV tonumber tostring type ipairs pairs next select error math string table unpack"
SANDBOX = """
function(source, names, call)
  local allowed, redis = {}, { call = call }
  for name in string.gmatch(names, '%S+') do allowed[name] = true end
  local globals = setmetatable({}, {
    __index = function(_, name)
      if name == 'redis' then return redis end
      if not allowed[name] or _G[name] == nil then error('there is no global ' .. tostring(name), 0) end
      return _G[name]
    end,
    __newindex = function(_, name) error('the global ' .. tostring(name) .. ' is written', 0) end,
  })
  local script
  if setfenv then
    script = setfenv(assert(loadstring(source, '=script')), globals)
  else
    script = assert(load(source, '=script', 't', globals))
  end
  return function(keys, argv)
    KEYS, ARGV = keys, argv
    return script()
  end
end
"""

LUA_ERRORS = (lupa.lua51.LuaError, lupa.lua54.LuaError)

Row = bytes | dict[bytes, int]


class ScriptError(Exception):
    """A script ended with an error."""


class ForbiddenByShim(Exception):
    """A script did what some store would refuse, or get wrong in silence."""


class LuaShim:
    """A store of one client: `run` takes the bytes of a call and returns the script's answer."""

    def __init__(self, version: int, scripts: Mapping[str, Script], *, expires: bool = True) -> None:
        self.now_ms = 0
        self.rows: dict[bytes, Row] = {}
        self.until_ms: dict[bytes, int] = {}
        self._expires = expires  # not for a clock that runs backwards: what has expired would not come back
        self.calls: list[bytes] = []  # the commands of the last script
        self._declared: set[bytes] = set()
        self._lua = RUNTIMES[version](encoding=None, unpack_returned_tuples=False)
        self._sandbox = self._lua.eval(SANDBOX)
        self._compiled = {script.sha: self.compile(script.text) for script in scripts.values()}

    def compile(self, source: bytes) -> Callable[[Any, Any], Any]:
        """A script, ready to run."""
        compiled: Callable[[Any, Any], Any] = self._sandbox(source, MAY_USE, self._call)
        return compiled

    def run(self, call: bytes) -> bytes:
        """Run one EVALSHA, given as what a client would send."""
        (words,) = Parser().feed(call)
        assert isinstance(words, list)
        assert words[0] == b"EVALSHA"
        return self.run_words(words)

    def run_words(self, words: list[bytes]) -> bytes:
        """Run one EVALSHA, given word by word."""
        count = int(words[2])
        return self.evaluate(self._compiled[words[1]], words[3 : 3 + count], words[3 + count :])

    def evaluate(self, script: Callable[[Any, Any], Any], keys: list[bytes], argv: list[bytes]) -> bytes:
        """Run a compiled script."""
        self._declared = set(keys)
        self.calls = []
        try:
            answer = script(self._lua.table_from(keys), self._lua.table_from(argv))
        except LUA_ERRORS as error:
            raise ScriptError(str(error)) from None
        if not isinstance(answer, bytes):
            raise ForbiddenByShim(f"the answer {answer!r} is no string: numbers leave by %d")
        return answer

    def _call(self, name: bytes, *arguments: Any) -> Any:  # noqa: ANN401  # what Lua hands over
        for argument in arguments:
            if not isinstance(argument, bytes):
                raise ForbiddenByShim(f"{name!r} is given {argument!r}: numbers leave by %d")
        self.calls.append(name)
        commands: dict[bytes, Callable[..., Any]] = {
            b"TIME": self._time,
            b"MGET": self._mget,
            b"MSET": self._mset,
            b"SET": self._set,
            b"PEXPIRE": self._pexpire,
            b"ZADD": self._zadd,
            b"ZREM": self._zrem,
            b"ZCOUNT": self._zcount,
            b"ZREMRANGEBYSCORE": self._zremrangebyscore,
        }
        if name not in commands:
            raise ForbiddenByShim(f"{name!r} is not among the commands that scripts use")
        return commands[name](*arguments)

    def _row(self, key: bytes) -> Row | None:
        if key not in self._declared:
            raise ForbiddenByShim(f"{key!r} is not among KEYS")
        if self._expires and self.now_ms >= self.until_ms.get(key, math.inf):
            self.rows.pop(key, None)
            self.until_ms.pop(key, None)
        return self.rows.get(key)

    def _sorted_set(self, key: bytes) -> dict[bytes, int]:
        row = self._row(key)
        if isinstance(row, bytes):
            raise ForbiddenByShim(f"{key!r} is no sorted set")
        return row if row is not None else {}

    def _time(self) -> Any:  # noqa: ANN401
        seconds, ms = divmod(self.now_ms, 1000)
        return self._lua.table_from([b"%d" % seconds, b"%d" % (ms * 1000 + 999)])

    def _mget(self, *keys: bytes) -> Any:  # noqa: ANN401
        rows = [self._row(key) for key in keys]
        return self._lua.table_from([row if isinstance(row, bytes) else False for row in rows])

    def _mset(self, *pairs: bytes) -> bytes:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._row(key)
            self.rows[key] = value
            self.until_ms.pop(key, None)
        return b"OK"

    def _set(self, key: bytes, value: bytes, option: bytes, ttl_ms: bytes) -> bytes:
        assert option == b"PX"
        self._mset(key, value)
        self._pexpire(key, ttl_ms)
        return b"OK"

    def _pexpire(self, key: bytes, ttl_ms: bytes) -> int:
        assert int(ttl_ms) > 0
        if self._row(key) is None:
            return 0
        self.until_ms[key] = self.now_ms + int(ttl_ms)
        return 1

    def _zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        members = self._sorted_set(key)
        added = member not in members
        members[member] = int(score)
        self.rows[key] = members
        return int(added)

    def _zrem(self, key: bytes, member: bytes) -> int:
        return int(self._sorted_set(key).pop(member, None) is not None)

    def _zcount(self, key: bytes, least: bytes, most: bytes) -> int:
        assert least.startswith(b"(")
        assert most == b"+inf"
        return sum(score > int(least[1:]) for score in self._sorted_set(key).values())

    def _zremrangebyscore(self, key: bytes, least: bytes, most: bytes) -> int:
        assert least == b"-inf"
        members = self._sorted_set(key)
        gone = [member for member, score in members.items() if score <= int(most)]
        for member in gone:
            del members[member]
        return len(gone)
