"""limits: callers above their quota, callers well within theirs, and one that comes back exactly when it was told to.

A refusal is an answer here, an entry of its own (`refused`), and is checked; so is the wait it told: Patient has its
key to itself, so nobody can be in its way once the time is over.
"""

from bench.load import prompts, refusals
from bench.load.profiles import PATIENT_RULE, QUOTA_RULE
from bench.locust.kit import CHAT, Caller, sleep, task


class Limited(Caller):
    """A caller who may be refused."""

    abstract = True

    def ask_limited(self, name: str, rule: str, *, due_s: float) -> int:
        """A plain request that was due then; for how many ms it was told to wait, 0 when it was not refused."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES)
        with self.client.post(CHAT, data=body, headers=self.headers(), name=name, catch_response=True) as answer:
            self.time(answer, due_s)
            if answer.status_code != refusals.TOO_MANY:
                self.check(answer)
                return 0
            answer.request_meta["name"] = f"{name} refused"
            problem = refusals.problem(answer.headers, answer.content, rule)
            if problem:
                answer.failure(problem)
            else:
                answer.success()
            return refusals.wait_ms(answer.headers)


class AtQuota(Limited):
    """Asks for more than its key may have, and does not wait."""

    @task
    def question(self) -> None:
        """A short prompt."""
        self.begin(lambda due_s: self.ask_limited("at quota", QUOTA_RULE, due_s=due_s) and None)


class Within(Caller):
    """A tenant that is far from its limits, and must not notice."""

    key = Caller.orders.neighbours_key

    @task
    def question(self) -> None:
        """A short prompt."""
        body = prompts.sized(self.random, self.orders.model, prompts.SHORT_BYTES)
        self.begin(lambda due_s: self.ask("within", body, due_s=due_s))


class Patient(Limited):
    """Asks until it is refused, waits as long as it was told to, and is admitted."""

    key = Caller.orders.patient_key
    fixed_count = 1

    @task
    def question(self) -> None:
        """One request, and the one after the wait."""
        wait_ms = self.ask_limited("patient", PATIENT_RULE, due_s=self.now_s())
        if wait_ms:
            sleep(wait_ms / refusals.MS_PER_S)
            if self.ask_limited("patient", PATIENT_RULE, due_s=self.now_s()):
                self.fail("patient", f"refused again after the {wait_ms} ms it was told to wait")
