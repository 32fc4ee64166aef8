"""agents: bursts of tool loops whose context grows with every turn, as fast as the answers come."""

import time

from bench.load import prompts
from bench.locust.kit import Caller, task


class Agent(Caller):
    """A conversation is due at random moments; its turns follow each other at once."""

    @task
    def conversation(self) -> None:
        """One more of them."""
        self.begin(self.turns)

    def turns(self, due_s: float) -> None:
        """All turns, or as many as are answered; the first was due then, each other once the one before is there."""
        messages = prompts.opening(self.random)
        for turn in range(prompts.AGENT_TURNS):
            if self.ask("agent turn", prompts.agent(messages, self.orders.model), due_s=due_s) is None:
                return
            messages = prompts.after_tool(self.random, messages, turn)
            due_s = time.monotonic()
