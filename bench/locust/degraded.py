"""degraded: the first provider fails and heals meanwhile; callers must see neither, but for the time a retry takes."""

from bench.load import prompts
from bench.locust.kit import Caller, task


class Degraded(Caller):
    """Short questions and streams in turn, so that both are under way whenever it happens."""

    @task
    def question(self) -> None:
        """A plain one."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES)
        self.begin(lambda due_s: self.ask("chat", body, due_s=due_s))

    @task
    def stream(self) -> None:
        """A streamed one."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES, stream=True)
        self.begin(lambda due_s: self.listen("stream", body, due_s=due_s))
