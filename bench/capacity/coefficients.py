"""What a request, a KB, a stream and a chunk cost: measured figures with the conditions they were measured under."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from bench.speed.launch import CannotRun

PATH: Final = Path(__file__).parent.parent / "results" / "coefficients.json"


class NoCoefficients(CannotRun):
    """There are none yet, or they cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Coefficients:
    """CPU in µs of all the gateway's processes, at half load; memory of the worker; journal's bytes on disk."""

    date: str
    machine: str
    gateway: str
    request_us: float
    prompt_kb_us: float
    stream_us: float
    chunk_us: float
    node_mb: float  # all processes but the worker
    worker_mb: float  # idle
    connection_kb: float
    stream_kb: float
    journal_bytes: float  # an exchange
    p99_added_ms: float  # at half load, small requests

    def stored(self, path: Path = PATH) -> None:
        """Written, replacing what was there."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def load(path: Path = PATH) -> Coefficients:
    """Those stored last; NoCoefficients when there are none."""
    try:
        return _read(json.loads(path.read_text()))
    except FileNotFoundError:
        raise NoCoefficients(f"nothing was measured yet ({path}): python -m bench.capacity --calibrate") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NoCoefficients(f"{path} cannot be read ({error!r}): python -m bench.capacity --calibrate") from None


def _read(stored: Mapping[str, Any]) -> Coefficients:
    words = {"date", "machine", "gateway"}
    values: dict[str, Any] = {
        field.name: str(stored[field.name]) if field.name in words else float(stored[field.name])
        for field in fields(Coefficients)
    }
    return Coefficients(**values)


@dataclass(frozen=True)
class Measured:
    """CPU per request, measured at two sizes, from which the coefficients follow."""

    small_us: float
    small_kb: float
    large_us: float
    large_kb: float
    short_stream_us: float
    short_chunks: int
    long_stream_us: float
    long_chunks: int

    @property
    def prompt_kb_us(self) -> float:
        """The slope over the prompt's size; noise may not make it negative."""
        return max(0.0, (self.large_us - self.small_us) / (self.large_kb - self.small_kb))

    @property
    def request_us(self) -> float:
        """A request without a prompt."""
        return self.small_us - self.prompt_kb_us * self.small_kb

    @property
    def chunk_us(self) -> float:
        """The slope over a stream's chunks."""
        return max(0.0, (self.long_stream_us - self.short_stream_us) / (self.long_chunks - self.short_chunks))

    @property
    def stream_us(self) -> float:
        """A stream without chunks and without a prompt."""
        return self.short_stream_us - self.chunk_us * self.short_chunks - self.prompt_kb_us * self.small_kb
