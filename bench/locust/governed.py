"""governed: the prompts of chat with everything on: four limits on the key, prices, journal, metrics."""

from bench.locust.chat import Chat

__all__ = ["Chat"]
