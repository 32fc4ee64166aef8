"""noisy_neighbour: one tenant floods with large prompts; what the others are answered must not slow down.

Locust is told which of the two classes to run: `Quiet` alone first, then both.
"""

from bench.load import prompts
from bench.locust.kit import Caller, task


class Quiet(Caller):
    """The tenants that must not notice."""

    @task
    def question(self) -> None:
        """A short prompt."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES)
        self.begin(lambda due_s: self.ask("quiet", body, due_s=due_s))


class Flood(Caller):
    """The tenant with a key of its own that asks for more than its share."""

    key = Caller.orders.neighbours_key
    eagerness = 4.0

    @task
    def question(self) -> None:
        """A large prompt, as soon as it may."""
        body = prompts.sized(self.random, self.orders.model, prompts.RAG_BYTES)
        self.begin(lambda due_s: self.ask("flood", body, due_s=due_s))
