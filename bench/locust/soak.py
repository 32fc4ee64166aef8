"""soak: hours of everything at once; what the gateway's processes hold must not grow."""

from bench.load import prompts
from bench.locust.kit import EMBEDDINGS, Caller, task


class Soak(Caller):
    """A caller of every kind."""

    @task
    def chat(self) -> None:
        """A prompt of the mix."""
        size, body = prompts.chat(self.random, self.orders.model)
        self.ask(f"chat {size}", body)

    @task
    def stream(self) -> None:
        """A stream."""
        self.listen("stream", prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES, stream=True))

    @task
    def embeddings(self) -> None:
        """A batch."""
        self.ask("embeddings", prompts.embeddings(self.random, self.orders.model), EMBEDDINGS)
