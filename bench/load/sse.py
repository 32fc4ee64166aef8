"""How a caller reads a stream: when its first token came, how far its tokens lie apart, whether it ended as it must.

Fed line by line with the time of each; knows nothing of sockets. An event counts as a token when its delta has content.
Whatever is wrong is told in words by `problem`, since a fast stream that is cut short is not a fast stream.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DATA = b"data:"


@dataclass
class Reading:
    """One stream as it was received; times in seconds of the caller's clock."""

    started_s: float
    tokens_s: list[float] = field(default_factory=list)
    finished: bool = False  # a finish_reason was seen
    terminated: bool = False  # data: [DONE]
    error: str = ""
    behind_terminator: int = 0

    def line(self, raw: bytes, now_s: float) -> None:
        """One line without what it ended with; comments and empty lines count for nothing."""
        if not raw.startswith(DATA):
            return
        data = raw[len(DATA) :].strip()
        if self.terminated:
            self.behind_terminator += 1
        elif data == b"[DONE]":
            self.terminated = True
        else:
            self._event(data, now_s)

    def _event(self, data: bytes, now_s: float) -> None:
        try:
            event: Mapping[str, Any] = json.loads(data)
        except ValueError:
            self.error = self.error or f"an event is not JSON: {data[:60]!r}"
            return
        if "error" in event:
            self.error = self.error or f"an error inside the stream: {event['error']}"
        for choice in event.get("choices") or ():
            if (choice.get("delta") or {}).get("content"):
                self.tokens_s.append(now_s)
            self.finished = self.finished or bool(choice.get("finish_reason"))

    @property
    def ttft_ms(self) -> float | None:
        """Until the first token; None when there was none."""
        return (self.tokens_s[0] - self.started_s) * 1e3 if self.tokens_s else None

    def gaps_ms(self) -> Iterator[float]:
        """Between each token and the one before."""
        return ((later - sooner) * 1e3 for sooner, later in zip(self.tokens_s, self.tokens_s[1:], strict=False))

    def problem(self) -> str:
        """What was wrong with it; empty when nothing was."""
        if self.error:
            return self.error
        if not self.tokens_s:
            return "no token came"
        if not self.finished:
            return "no finish_reason came"
        if not self.terminated:
            return "it ended without data: [DONE]"
        return f"{self.behind_terminator} events behind data: [DONE]" if self.behind_terminator else ""
