"""soak: hours of everything at once; what the gateway's processes hold must not grow."""

from bench.load import prompts
from bench.locust.kit import EMBEDDINGS, Caller, task


class Soak(Caller):
    """A caller of every kind."""

    @task
    def chat(self) -> None:
        """A prompt of the mix."""
        size, body = prompts.chat(self.random, self.orders.model)
        self.begin(lambda due_s: self.ask(f"chat {size}", body, due_s=due_s))

    @task
    def stream(self) -> None:
        """A stream."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES, stream=True)
        self.begin(lambda due_s: self.listen("stream", body, due_s=due_s))

    @task
    def embeddings(self) -> None:
        """A batch."""
        body = prompts.embeddings(self.random, self.orders.model)
        self.begin(lambda due_s: self.ask("embeddings", body, EMBEDDINGS, due_s=due_s))
