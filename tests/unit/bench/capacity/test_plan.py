"""The arithmetic of a plan, figure by figure, on coefficients that are easy to check by hand."""

from dataclasses import replace

import pytest

from bench.capacity import plan
from bench.capacity.coefficients import Coefficients
from bench.capacity.plan import Mix, Nodes

COSTS = Coefficients(
    date="2026-01-02",
    machine="CPU",
    gateway="1.0",
    request_us=100,
    prompt_kb_us=2,
    stream_us=200,
    chunk_us=10,
    node_mb=100,
    worker_mb=50,
    connection_kb=20,
    stream_kb=30,
    journal_bytes=1500,
    p99_added_ms=0.8,
)
MIX = Mix(rps=1000, stream_share=0.5, prompt_kb=10, output_tokens=80, ttft_ms=400, token_ms=20)


def test_cpu_is_the_sum_of_its_parts() -> None:
    plain, prompts, streams = 500 * 100, 1000 * 10 * 2, 500 * (200 + 80 * 10)
    assert plan.cpu_us_per_s(MIX, COSTS) == plain + prompts + streams == 570_000


def test_workers_are_half_loaded_and_one_node_may_die() -> None:
    found = plan.plan(replace(MIX, rps=10_000), COSTS, Nodes(cores=4, spare=1, target_load=0.5))
    assert (found.cores, found.workers, found.nodes, found.workers_per_node) == (5.7, 12, 4, 4)


def test_what_is_open_follows_from_how_long_it_lasts() -> None:
    found = plan.plan(MIX, COSTS, Nodes(cores=8, spare=0))
    assert (found.open_streams, found.open_requests) == (1000, 1000)  # 500 a second, two seconds each
    assert found.memory_mb == pytest.approx(100 + 2 * 50 + (1000 * 30 + 1000 * 30) / 1024)
    assert found.descriptors == 2 * 1000 + plan.SPARE_DESCRIPTORS


def test_the_journal_takes_its_bytes_whatever_is_streamed() -> None:
    found = plan.plan(MIX, COSTS, Nodes())
    assert found.journal_mb_per_s == 1.5
    assert found.journal_gb_per_day == pytest.approx(129.6)


def test_a_store_is_asked_twice_a_request_and_for_leases_of_what_lasts() -> None:
    found = plan.plan(MIX, COSTS, Nodes(cores=1, spare=1))
    assert found.store_calls_per_s == 2_000  # two seconds each: no lease is renewed
    assert found.store_connections == 2 + 3  # two workers on two nodes, and a spare one
    lasting = plan.plan(replace(MIX, ttft_ms=58_400), COSTS, Nodes())
    assert lasting.open_streams + lasting.open_requests == 60_000
    assert lasting.store_calls_per_s == 2_000 + 200  # twenty thousand leases a second, a hundred a call


def test_a_little_load_takes_one_worker() -> None:
    found = plan.plan(replace(MIX, rps=0.1), COSTS, Nodes(spare=1))
    assert (found.workers, found.nodes) == (1, 2)


def test_the_page_names_the_coefficients_and_their_date() -> None:
    text = plan.markdown(MIX, COSTS, Nodes())
    assert "Measured 2026-01-02 on CPU, gateway 1.0" in text
    assert "| a chunk, µs | 10.00 |" in text
    assert "| workers, each at 50% of a core | 2 |" in text
