"""embeddings: batches of passages, answered with vectors that are larger than what was asked."""

from bench.load import prompts
from bench.locust.kit import EMBEDDINGS, Caller, task


class Embeddings(Caller):
    """Sends one batch after the other."""

    @task
    def batch(self) -> None:
        """Sixteen passages."""
        body = prompts.embeddings(self.random, self.orders.model)
        self.begin(lambda due_s: self.ask("embeddings", body, EMBEDDINGS, due_s=due_s))
