"""stream: answers that come token by token at a model's pace; first token, gaps and terminator are checked."""

from bench.load import prompts
from bench.locust.kit import Caller, task


class Stream(Caller):
    """Reads one stream after the other."""

    @task
    def question(self) -> None:
        """A retrieval-sized prompt, its answer streamed."""
        body = prompts.sized(self.random, self.orders.model, prompts.RAG_BYTES, stream=True)
        self.begin(lambda due_s: self.listen("stream", body, due_s=due_s))
