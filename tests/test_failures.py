"""What README.md says operators can rely on is proven: each row of its failure tables by tests."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = "What you can rely on when things break"

UPSTREAM = "integration/test_faults_upstream.py"
NO_ANSWER = f"{UPSTREAM}::test_an_answer_that_is_none_is_an_error_in_our_words_and_costs_nothing"
REFUSAL = f"{UPSTREAM}::test_a_refusal_is_passed_on_with_its_status_its_words_and_its_wait"
GONE = f"{UPSTREAM}::test_an_upstream_that_is_gone_is_told_at_once_and_nothing_is_charged"
STREAMS = "integration/test_faults_streams.py"
BREAKS = (
    f"{STREAMS}::test_a_stream_that_breaks_ends_with_one_error_event_and_costs_what_was_generated"
)
CLIENTS = "integration/test_faults_clients.py"
HOSTILE = f"{CLIENTS}::test_all_that_is_hostile_at_once_costs_nothing_and_disturbs_nobody"
LEAVES = f"{CLIENTS}::test_whenever_a_client_leaves_it_pays_what_was_made_and_nothing_stays"
MACHINE = "integration/test_faults_machine.py"
DISKS = "integration/test_faults_disks.py"
CLOCK = "integration/test_faults_clock.py"
KILLS = (
    "integration/test_kills.py::"
    "test_ends_at_random_moments_under_load_lose_one_flush_at_most_and_invent_nothing"
)
BREAKER = "integration/test_breaker.py"
DISCONNECTS = "integration/test_disconnects.py"
DURABILITY = "integration/test_durability.py"
FAILOVER = "integration/test_failover.py"
HTTP = "integration/test_http.py"
REDIS = "integration/test_cluster_faults.py"
LIFECYCLE = "integration/test_lifecycle.py"
OVERLOAD = "integration/test_overload.py"
UPSTREAMS = "integration/test_upstreams.py"
UNSEEN = f"{FAILOVER}::test_nobody_sees_a_failure_before_the_first_byte"

PROOFS: dict[str, tuple[str, ...]] = {
    # vLLM
    "is not there at start": (
        f"{LIFECYCLE}::test_without_vllm_it_starts_says_what_to_do_and_recovers_by_itself",
        GONE,
    ),
    "is gone": (GONE, f"{FAILOVER}::test_nobody_sees_an_upstream_that_is_gone"),
    "closes or resets before it answers": (NO_ANSWER, UNSEEN),
    "closed an idle connection": (
        f"{FAILOVER}::test_connections_the_upstream_closed_while_idle_are_replaced_unseen",
        f"{FAILOVER}::test_a_kept_connection_that_ends_before_any_byte_is_replaced_once_unseen",
    ),
    "answers 5xx, as a dead engine does": (
        NO_ANSWER,
        UNSEEN,
        "integration/test_operations.py::"
        "test_an_upstream_that_says_it_is_unwell_makes_the_gateway_unready",
    ),
    "answers what is no answer": (NO_ANSWER, UNSEEN),
    "hangs": (NO_ANSWER, f"{FAILOVER}::test_a_hanging_upstream_is_not_asked_again_elsewhere"),
    "breaks off a stream": (
        BREAKS,
        f"{FAILOVER}::test_what_the_client_has_begun_to_hear_is_never_asked_again",
    ),
    "reports an error inside a stream and ends it as if all were well": (BREAKS,),
    "falls silent inside a stream": (BREAKS,),
    "streams oddly": (f"{STREAMS}::test_what_is_odd_and_well_formed_arrives_byte_for_byte",),
    "reports no usage, or one that nobody can believe": (
        f"{STREAMS}::test_usage_that_nobody_can_believe_is_estimated_and_never_nothing",
    ),
    "answers with more than `MAX_ANSWER_BYTES`": (
        f"{STREAMS}::test_a_whole_answer_beyond_the_bound_is_cut_and_costs_the_prompt",
    ),
    "refuses a request (400, 404, 422), be it before it has all of it": (REFUSAL,),
    "says 429 or 503": (
        REFUSAL,
        f"{FAILOVER}::test_who_is_all_busy_for_a_moment_is_asked_again_after_it",
    ),
    "refuses the gateway's own key, or redirects": (
        NO_ANSWER,
        "integration/test_logs.py::"
        "test_an_upstream_that_refuses_our_key_is_our_fault_and_not_the_clients",
    ),
    "keeps failing": (
        f"{BREAKER}::test_failures_in_a_row_open_it_and_then_the_upstream_is_left_alone",
        f"{BREAKER}::test_half_open_lets_exactly_the_probes_of_a_stampede_through",
        "gateway/test_breaker.py::test_half_of_twenty_recent_calls_failing_opens",
    ),
    "has all the calls it may take (`max_in_flight`), and so have its replicas": (
        f"{UPSTREAMS}::test_calls_to_full_replicas_wait_and_are_answered",
        f"{UPSTREAMS}::test_a_full_model_with_a_full_queue_says_when_to_come_back",
        f"{UPSTREAMS}::test_calls_to_a_full_model_hold_up_no_other_model",
        f"{UPSTREAMS}::test_who_waits_for_a_replica_that_dies_is_told_at_once",
    ),
    "is killed under load, with a second replica there": (
        "integration/test_upstreams.py::"
        "test_a_replica_killed_under_load_loses_nothing_that_had_not_begun",
        "integration/test_streams.py::"
        "test_an_upstream_that_dies_under_streams_cuts_each_of_them_once",
    ),
    # Clients
    "leaves before anything was sent to vLLM": (
        LEAVES,
        f"{CLIENTS}::test_who_leaves_while_the_gateway_is_still_connecting_pays_nothing",
        f"{DISCONNECTS}::test_who_leaves_the_queue_was_never_there",
    ),
    "leaves before vLLM has said anything": (
        f"{DISCONNECTS}::test_who_leaves_before_the_first_byte_pays_the_estimate_of_the_prompt",
    ),
    "leaves in the middle": (
        LEAVES,
        f"{DISCONNECTS}::test_who_leaves_mid_stream_pays_for_what_was_generated_until_then",
    ),
    "leaves right after the end": (LEAVES,),
    "reads slowly": (
        "integration/test_streams.py::test_a_slow_client_slows_the_upstream_and_nobody_else",
    ),
    "reads nothing": (f"{CLIENTS}::test_who_reads_nothing_is_dropped_and_the_upstream_let_off",),
    "sends slowly, or stops halfway": (
        HOSTILE,
        f"{HTTP}::test_a_head_that_drips_is_ended_at_its_deadline",
        f"{HTTP}::test_a_body_that_drips_is_a_408_and_is_never_forwarded",
        "integration/test_operations.py::test_what_is_no_valid_http_is_counted_by_its_status",
    ),
    "sends HTTP that two parsers could read differently": (
        HOSTILE,
        f"{HTTP}::"
        "test_what_two_parsers_could_read_differently_is_refused_once_and_the_connection_closed",
        "integration/test_operations.py::test_what_is_no_valid_http_is_counted_by_its_status",
    ),
    "sends JSON that two parsers could read differently": (
        HOSTILE,
        "integration/test_bodies.py::"
        "test_a_body_that_two_parsers_could_read_differently_is_never_forwarded",
    ),
    "sends too much": (
        HOSTILE,
        f"{HTTP}::test_a_head_beyond_32_kib_is_a_431",
        f"{HTTP}::test_a_body_too_large_is_refused_on_its_header_unread",
    ),
    "and others send many large bodies at once": (
        f"{CLIENTS}::test_large_bodies_are_bounded_together_until_they_are_answered",
    ),
    "pipelines": (
        f"{CLIENTS}::test_pipelined_calls_are_booked_one_by_one",
        f"{HTTP}::test_a_pipeline_without_end_is_cut",
    ),
    "guesses keys": (
        f"{CLIENTS}::test_who_guesses_keys_is_refused_and_then_not_even_looked_at",
        "integration/test_limits.py::"
        "test_guessing_keys_is_limited_per_address_and_spares_other_addresses",
    ),
    # The gateway and its machine
    "`kill -9`": (
        KILLS,
        "gateway/quota/test_crash.py::test_kill_9_loses_at_most_the_last_interval",
    ),
    "SIGTERM": (
        KILLS,
        f"{LIFECYCLE}::test_a_drain_lets_streams_finish_and_takes_no_new_work",
        f"{LIFECYCLE}::"
        "test_what_outlasts_the_drain_ends_with_an_error_event_and_is_aborted_upstream",
        f"{DURABILITY}::test_usage_that_could_not_be_written_at_the_end_is_told_by_the_exit_code",
    ),
    "a second SIGTERM": (f"{LIFECYCLE}::test_a_second_signal_ends_at_once_and_loses_no_count",),
    "SIGHUP": (
        f"{MACHINE}::test_a_hangup_ends_nothing_even_without_a_file_to_read_anew",
        "integration/test_reload.py::test_a_change_is_taken_up_by_itself_and_a_hangup_hurries_it",
        "integration/test_logs_running.py::test_a_rotated_file_loses_no_line",
    ),
    "disk full": (f"{DISKS}::test_a_full_disk_stops_nobody_and_all_is_written_when_there_is_room",),
    "disk full at start": (f"{DISKS}::test_a_disk_that_is_full_at_the_start_is_told_in_one_line",),
    "disk turned read-only": (
        f"{DISKS}::test_a_disk_that_turned_read_only_stops_nobody_and_another_gets_all_of_it",
    ),
    "disk hangs": (f"{DISKS}::test_a_disk_that_hangs_holds_up_nobody_but_the_end",),
    "database locked by another program": (
        f"{DURABILITY}::test_a_locked_database_holds_up_nobody_and_loses_nothing",
    ),
    "database deleted": (
        f"{DURABILITY}::test_a_deleted_database_is_written_anew_with_all_of_today",
    ),
    "database damaged while running": (
        f"{DURABILITY}::test_a_corrupted_database_stops_nobody_and_is_replaced_by_the_operator",
        f"{DISKS}::test_pages_overwritten_while_it_runs_stop_nobody_and_are_told_at_the_next_start",
    ),
    "database damaged at start": (
        f"{DISKS}::test_pages_overwritten_before_the_start_refuse_it_and_stay_as_they_are",
        f"{DURABILITY}::test_an_unusable_database_is_refused_at_the_start_and_left_alone",
    ),
    "the clock steps, over midnight and back, in use or between starts": (
        f"{CLOCK}::test_a_clock_that_steps_gives_no_second_helping_of_the_quota",
        f"{CLOCK}::test_a_stream_and_its_deadlines_do_not_notice_that_the_clock_steps",
    ),
    "the process stands still": (
        f"{MACHINE}::test_a_process_that_stood_still_blames_nobody_for_its_own_silence",
    ),
    "more calls come than may run and wait": (
        f"{OVERLOAD}::test_every_call_is_answered_or_refused_and_none_is_lost",
        f"{OVERLOAD}::test_a_refused_call_never_reaches_the_upstream",
        f"{OVERLOAD}::test_a_key_below_its_share_is_always_answered",
        f"{OVERLOAD}::test_keys_beyond_their_share_get_equal_parts_of_what_is_left",
    ),
    "file descriptors run out": (
        f"{MACHINE}::test_descriptors_that_run_out_cut_newcomers_and_blame_no_upstream",
    ),
    "Redis is silent, dies or comes back empty (`REDIS_URL`)": (
        f"{REDIS}::test_a_redis_that_stands_still_costs_one_time_out_and_then_nothing",
        f"{REDIS}::test_a_redis_that_dies_and_comes_back_empty_is_told_the_books",
        f"{REDIS}::test_a_durable_redis_that_is_killed_again_and_again_keeps_exact_books",
        f"{REDIS}::test_open_policies_serve_without_redis_and_count_it_all_later",
    ),
    "a worker crashes (`WORKERS`)": (
        "integration/test_workers.py::"
        "test_a_worker_that_is_killed_is_started_again_and_its_calls_are_booked",
    ),
}


def rows() -> list[str]:
    """The first cell of every row, up to the colon behind which it gives examples."""
    section = (ROOT / "README.md").read_text().partition(f"\n## {SECTION}\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    cells = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    return [cell.partition(":")[0] for cell in cells if not cell.startswith("When")]


@cache
def claims_of(file: str) -> frozenset[str]:
    parsed = ast.parse((ROOT / "tests" / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in parsed.body if isinstance(node, functions))


def test_every_row_has_its_proofs_and_every_proof_its_row() -> None:
    assert rows() == list(PROOFS)


@pytest.mark.parametrize("row", PROOFS)
def test_the_proofs_of_a_row_exist(row: str) -> None:
    for proof in PROOFS[row]:
        file, _, name = proof.partition("::")
        assert re.fullmatch(r"test_\w+", name)
        assert name in claims_of(file), f"README.md says '{row}', which {proof} should prove"
