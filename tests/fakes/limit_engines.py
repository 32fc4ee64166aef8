"""Every engine behind one face: operations with the time as an argument, so that the same rows drive all of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.limiter import scripts
from gateway.limiter.engine import Amount, Renewal, Reserved, Settled, Slice, Standing
from gateway.limiter.hold import State
from gateway.limiter.resp import Parser, command
from gateway.limiter.scripts import Calls, Script, load_scripts
from gateway.limiter.spec import Spec
from tests.fakes.lua_shim import LuaShim
from tests.fakes.store_server import StoreConnection


class TimedEngine(Protocol):
    """What the model is, and what every engine can be dressed as."""

    def reserve(
        self,
        now_ms: int,
        hold_id: str,
        takes: Sequence[Amount],
        *,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Reserved: ...
    def settle(self, now_ms: int, hold_id: str, actuals: Sequence[Amount]) -> Settled: ...
    def renew(self, now_ms: int, holds: Sequence[Renewal], *, lease_ms: int) -> tuple[State, ...]: ...
    def lease(  # noqa: PLR0913  # Engine.lease and the time
        self,
        now_ms: int,
        node: str,
        turn: int,
        bucket: str,
        spec: Spec,
        *,
        want: int,
        least: int,
        unused: int,
        lease_ms: int,
    ) -> Slice: ...
    def peek(self, now_ms: int, asked: Sequence[Amount]) -> tuple[Standing, ...]: ...


class ScriptEngine:
    """The scripts, wherever they run: `run(now_ms, call)` answers the bytes of a call."""

    def __init__(self, calls: Calls, run: Callable[[int, bytes], bytes]) -> None:
        self._calls = calls
        self._run = run

    def reserve(
        self,
        now_ms: int,
        hold_id: str,
        takes: Sequence[Amount],
        *,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Reserved:
        call = self._calls.reserve(hold_id, takes, lease_ms=lease_ms, attempt=attempt, releases=releases)
        return scripts.reserved(self._run(now_ms, call))

    def settle(self, now_ms: int, hold_id: str, actuals: Sequence[Amount]) -> Settled:
        return scripts.settled(self._run(now_ms, self._calls.settle(hold_id, actuals)))

    def renew(self, now_ms: int, holds: Sequence[Renewal], *, lease_ms: int) -> tuple[State, ...]:
        return scripts.renewed(self._run(now_ms, self._calls.renew(holds, lease_ms=lease_ms)))

    def lease(  # noqa: PLR0913  # Engine.lease and the time
        self,
        now_ms: int,
        node: str,
        turn: int,
        bucket: str,
        spec: Spec,
        *,
        want: int,
        least: int,
        unused: int,
        lease_ms: int,
    ) -> Slice:
        call = self._calls.lease(node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms)
        return scripts.leased(self._run(now_ms, call))

    def peek(self, now_ms: int, asked: Sequence[Amount]) -> tuple[Standing, ...]:
        return scripts.peeked(self._run(now_ms, self._calls.peek(asked)))


def lua_engine(version: int, *, expires: bool = True) -> ScriptEngine:
    """The scripts in lupa, over a store that begins empty."""
    scripts = load_scripts()
    shim = LuaShim(version, scripts, expires=expires)

    def run(now_ms: int, call: bytes) -> bytes:
        shim.now_ms = now_ms
        return shim.run(call)

    return ScriptEngine(Calls(scripts, "test"), run)


def store_engine(connection: StoreConnection, domain: str) -> ScriptEngine:
    """The scripts in a real store, but for the clock: TIME answers what the last of ARGV says."""
    scripts = {name: Script(STOPPED_CLOCK + script.text) for name, script in load_scripts().items()}
    for script in scripts.values():
        connection.send(script.load)

    def run(now_ms: int, call: bytes) -> bytes:
        (words,) = Parser().feed(call)
        assert isinstance(words, list)
        answer = connection.send(command(*words, b"%d" % now_ms))
        assert isinstance(answer, bytes), answer
        return answer

    return ScriptEngine(Calls(scripts, domain), run)


STOPPED_CLOCK = b"""
local stopped_ms, store = table.remove(ARGV), redis
local redis = { call = function(name, ...)
  if name ~= 'TIME' then return store.call(name, ...) end
  local seconds = math.floor(tonumber(stopped_ms) / 1000)
  return { string.format('%d', seconds), string.format('%d', (tonumber(stopped_ms) - seconds * 1000) * 1000 + 999) }
end }
"""
