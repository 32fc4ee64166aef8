"""chat: plain requests of a mix of short, retrieval-sized and 100 KB prompts."""

from bench.load import prompts
from bench.locust.kit import Caller, task


class Chat(Caller):
    """Asks one question after the other."""

    @task
    def question(self) -> None:
        """One prompt of the mix."""
        size, body = prompts.chat(self.random, self.orders.model)
        self.begin(lambda due_s: self.ask(f"chat {size}", body, due_s=due_s))
