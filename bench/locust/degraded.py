"""degraded: the first provider fails and heals meanwhile; callers must see neither, but for the time a retry takes."""

from bench.load import prompts
from bench.locust.kit import Caller, task


class Degraded(Caller):
    """Short questions and streams in turn, so that both are under way whenever it happens."""

    @task
    def question(self) -> None:
        """A plain one."""
        self.ask("chat", prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES))

    @task
    def stream(self) -> None:
        """A streamed one."""
        self.listen("stream", prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES, stream=True))
