"""Bodies are valid, of the size they claim, and differ from request to request."""

import json
from collections import Counter
from random import Random

from bench.load import prompts


def test_the_mix_has_its_sizes_in_their_shares() -> None:
    random = Random(1)
    seen = Counter[str]()
    for _ in range(400):
        name, body = prompts.chat(random, "m")
        size = next(size for known, size, _ in prompts.MIX if known == name)
        assert size <= len(body) < size * 1.2 + 500
        assert json.loads(body)["model"] == "m"
        seen[name] += 1
    assert 200 < seen["short"] < 280
    assert 20 < seen["100 KB"] < 65


def test_no_two_prompts_are_the_same() -> None:
    random = Random(1)
    assert len({prompts.sized(random, "m", 200) for _ in range(50)}) == 50


def test_a_stream_asks_for_usage() -> None:
    body = json.loads(prompts.sized(Random(1), "m", 200, stream=True))
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_an_agents_context_grows_and_answers_each_call() -> None:
    random = Random(1)
    messages = prompts.opening(random)
    lengths = []
    for turn in range(prompts.AGENT_TURNS):
        body = prompts.agent(messages, "m")
        lengths.append(len(body))
        sent = json.loads(body)["messages"]
        called = [call["id"] for message in sent for call in message.get("tool_calls", ())]
        answered = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
        assert called == answered == [f"call_{number}" for number in range(turn)]
        messages = prompts.after_tool(random, messages, turn)
    assert lengths == sorted(set(lengths))
    assert lengths[-1] > lengths[0] + 4 * prompts.TOOL_RESULT_BYTES


def test_a_batch_has_its_passages() -> None:
    assert len(json.loads(prompts.embeddings(Random(1), "m"))["input"]) == prompts.EMBEDDING_INPUTS
