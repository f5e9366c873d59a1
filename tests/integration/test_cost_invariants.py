"""What calls and runs cost, in numbers that no busy machine can change: see benchmarks.invariants."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.invariants import Costs, measure_costs


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Costs:
    return asyncio.run(measure_costs(tmp_path_factory.mktemp("costs")))


def test_a_start_is_one_round_trip(costs: Costs):
    assert costs.start == 1


def test_a_ready_result_is_one_round_trip_at_first_and_then_none(costs: Costs):
    assert costs.miss == 1
    assert costs.hit == 0


def test_a_run_of_one_quick_step_is_a_claim_and_a_commit(costs: Costs):
    assert costs.run == 2


def test_a_game_is_a_claim_a_commit_of_its_embeddings_and_one_of_all_else(costs: Costs):
    # No step takes so long that it is shown as running; those that end together share a commit.
    assert costs.game == 3


def test_an_idle_worker_asks_for_jobs_once_for_each_that_it_gets(costs: Costs):
    # And once a second while there is none, and for more when one came at once.
    assert costs.job_requests <= 2


def test_a_wait_is_two_reads_however_long_it_is(costs: Costs):
    assert costs.wait <= 2


def test_a_hundred_who_wait_for_one_run_are_woken_by_its_announcement(costs: Costs):
    # It carries the result. One read when it arrives while they read.
    assert costs.wake_up <= 1


def test_no_one_sends_a_command_that_is_not_a_script_or_a_request_for_jobs(costs: Costs):
    assert costs.unexpected == frozenset()


def test_an_api_process_has_four_connections_to_redis(costs: Costs):
    # Three for calls, one subscription.
    assert costs.api_connections <= 4


def test_a_worker_has_few_connections_to_redis(costs: Costs):
    assert costs.worker_connections <= 4


def test_a_ready_result_is_hardly_more_than_its_numbers(costs: Costs):
    assert costs.number_bytes == 12 * 384 * 4 + 100 * 8
    assert costs.answer_bytes <= 1.03 * costs.number_bytes


def test_an_api_process_loads_nothing_of_a_worker(costs: Costs):
    assert costs.heavy_modules == frozenset()
    assert costs.modules < 680
