"""
Every limit, and what becomes of whoever reaches it.

Those of one function are reached here, each.  The others have the test in which
they are; a limit that is added has to be put on one of the lists.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.errors import FunctionTimeout, InvalidValue, LimitExceeded, Overloaded, UsageError
from engine.functions.history import SNAPSHOT_TOO_OLD
from engine.host import Engine
from engine.model import limits as module
from engine.model.limits import Limits
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.architecture.source_tree import ROOT
from tests.node.nodes import ADMIN, ask, mutate, serving

MODULE = __name__.replace(".", "/")


# Of one function: the error says which and how much, and four fifths of it are warned of.


@mutation
async def insert(ctx: MutationCtx, count: int, size: int = 0, depth: int = 0) -> None:
    nested: Any = 0
    for _ in range(depth):
        nested = [nested]
    for _ in range(count):
        await ctx.db.insert("things", {"text": "x" * size, "nested": nested})


@query
async def read(ctx: QueryCtx, count: int) -> int:
    return len(await ctx.db.query("things").take(count))


@query
async def look(ctx: QueryCtx, count: int) -> None:
    for _ in range(count):
        await ctx.db.count("things")


@query
async def descend(ctx: QueryCtx, count: int) -> None:
    if count > 1:
        await ctx.run_query(descend, count - 1)


@mutation
async def schedule(ctx: MutationCtx, count: int, size: int = 0) -> None:
    for _ in range(count):
        await ctx.scheduler.run_after(60_000, take, "x" * size)


@mutation
async def take(ctx: MutationCtx, text: str) -> None:
    """Its arguments are all that it has."""


@query
async def give(ctx: QueryCtx, size: int) -> str:
    return "x" * size


APP: Final = [insert, read, look, descend, schedule, take, give]
PREPARED: Final = 10
"""Documents of a thousand letters that are there to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Calls that come near a limit of `allowed`, and over it."""

    function: Any
    allowed: int
    near: Mapping[str, Any]
    over: Mapping[str, Any]
    is_fixed: bool = False
    """It stands in the module, not in `Limits`: documents of another engine may be as large."""


KB: Final = {"size": 1_000}
OF_ONE_FUNCTION: Final[Mapping[str, Reach]] = {
    "args_bytes_max": Reach(
        function=take, allowed=1_000, near={"text": "x" * 800}, over={"text": "x" * 1_000}
    ),
    "result_bytes_max": Reach(
        function=give, allowed=1_000, near={"size": 900}, over={"size": 1_000}
    ),
    "documents_read_max": Reach(function=read, allowed=5, near={"count": 4}, over={"count": 6}),
    "bytes_read_max": Reach(function=read, allowed=5_000, near={"count": 4}, over={"count": 5}),
    "ranges_read_max": Reach(function=look, allowed=5, near={"count": 4}, over={"count": 6}),
    "documents_written_max": Reach(
        function=insert, allowed=PREPARED, near={"count": 8}, over={"count": 11}
    ),
    "bytes_written_max": Reach(
        function=insert, allowed=12_000, near={"count": 10, **KB}, over={"count": 12, **KB}
    ),
    "functions_scheduled_max": Reach(
        function=schedule, allowed=5, near={"count": 4}, over={"count": 6}
    ),
    "scheduled_args_bytes_max": Reach(
        function=schedule, allowed=5_000, near={"count": 4, **KB}, over={"count": 5, **KB}
    ),
    "call_depth_max": Reach(function=descend, allowed=5, near={"count": 4}, over={"count": 6}),
    "DOCUMENT_BYTES_MAX": Reach(
        function=insert,
        allowed=1 << 20,
        near={"count": 1, "size": 900_000},
        over={"count": 1, "size": 1 << 20},
        is_fixed=True,
    ),
    "DOCUMENT_NESTING_MAX": Reach(
        function=insert,
        allowed=16,
        near={"count": 1, "depth": 12},
        over={"count": 1, "depth": 16},
        is_fixed=True,
    ),
}


async def outcome(limit: str, reach: Reach, args: Mapping[str, Any]) -> Any:
    limits = Limits() if reach.is_fixed else replace(Limits(), **{limit: reach.allowed})
    async with serving(APP, limits=limits) as node:
        if reach.function in (read, look):
            await mutate(node, insert, PREPARED, size=1_000)
        path = f"{MODULE}:{reach.function.handler.__name__}"
        if reach.function.kind.value == "mutation":
            return await node.functions.mutation(path, args, caller=ADMIN)
        result = await node.functions.query(path, args, caller=ADMIN)
        result.live.release()
        return result


@pytest.mark.parametrize("limit", OF_ONE_FUNCTION)
async def test_a_function_over_a_limit_is_told_which_and_how_much(
    limit: str, autojump_clock: MockClock
) -> None:
    reach = OF_ONE_FUNCTION[limit]

    result = await outcome(limit, reach, reach.over)

    error = result.failure.error
    assert isinstance(error, LimitExceeded)
    assert (limit, reach.allowed) == (error.limit, error.allowed)
    assert error.used > reach.allowed
    assert f"{error.used:,} is over the limit of {reach.allowed:,} ({limit})" in str(error)
    assert not str(error).endswith(f"({limit})."), "it ends with what to do"


@pytest.mark.parametrize("limit", OF_ONE_FUNCTION)
async def test_a_function_that_used_four_fifths_is_warned_of_that_limit_only(
    limit: str, autojump_clock: MockClock
) -> None:
    reach = OF_ONE_FUNCTION[limit]

    result = await outcome(limit, reach, reach.near)

    assert result.failure is None, result.failure.message
    (line,) = result.log_lines
    assert line.startswith("[WARN] ")
    assert f"of at most {reach.allowed} ({limit})" in line


# Of the engine, its clients and its files: where it is seen what becomes of the caller.

ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {
    # A function is interrupted, an action cancelled: FunctionTimeout.
    "user_time_s_max": ("node/test_watchdog.py", "test_a_spin_ends_soon_after_its_limit"),
    "system_time_s_max": ("node/test_watchdog.py", "test_calls_have_a_limit_of_their_own"),
    "action_time_s_max": (
        "node/test_hosts_actions.py",
        "test_an_action_that_takes_too_long_is_ended",
    ),
    "stuck_s_max": (
        "node/test_watchdog.py",
        "test_a_call_that_cannot_be_interrupted_ends_the_process",
    ),
    "LOAD_S_MAX": (
        "unit/functions/test_loader.py",
        "test_a_module_that_spins_is_refused_with_its_line",
    ),
    # What is too long is cut, and says so.
    "log_lines_max": (
        "unit/functions/test_logs.py",
        "test_beyond_the_limit_one_line_says_that_lines_are_missing",
    ),
    "log_line_bytes_max": ("unit/functions/test_logs.py", "test_a_cut_line_says_so"),
    "ERROR_LENGTH_MAX": (
        "node/test_hostile_functions.py",
        "test_an_error_of_any_size_is_told_in_few_words",
    ),
    "VALUE_BYTES_MAX": (
        "node/test_hostile_functions.py",
        "test_an_error_of_any_size_is_told_in_few_words",
    ),
    "SHOWN_LENGTH_MAX": (
        "node/test_hostile_clients.py",
        "test_a_long_name_is_not_said_back_at_length",
    ),
    "BACKOFF_S_MAX": ("node/test_retries.py", "test_waits_are_bounded_however_often_it_was_tried"),
    "ATTEMPTS_MAX": ("unit/app/test_crons.py", "test_a_retry_that_cannot_be_is_refused"),
    "crons_max": (
        "node/test_registered_crons.py",
        "test_registering_counts_as_scheduling_does_and_ends_at_a_number_of_crons",
    ),
    "CONTEXT_BYTES_MAX": ("node/test_retries.py", "test_what_cannot_be_tried_again_is_refused"),
    "TOLD_BYTES_MAX": ("node/test_retries.py", "test_of_a_huge_result_the_size_is_told"),
    "SCHEDULE_S_MAX": ("node/test_jobs.py", "test_a_time_that_is_none_or_years_away_is_refused"),
    "SEARCH_TERMS_MAX": (
        "node/test_search.py",
        "test_terms_after_the_sixteenth_are_not_looked_for_and_a_line_says_so",
    ),
    "SEARCH_TERM_BYTES_MAX": (
        "node/test_search.py",
        "test_words_of_thirty_two_bytes_are_left_out",
    ),
    **dict.fromkeys(
        ("DOCUMENTS_SHOWN_MAX", "DOCUMENTS_SHOWN_BYTES_MAX", "RECORDS_SHOWN_MAX"),
        ("node/test_operators.py", "test_no_more_is_shown_at_a_time_than_fits"),
    ),
    # Others have their turn; the caller goes on.
    "slice_rows_max": ("node/test_streamed_scans.py", "test_a_long_stream_lets_others_run"),
    "slice_s_max": ("node/test_streamed_scans.py", "test_a_long_stream_lets_others_run"),
    "batch_count_max": (
        "node/test_batches.py",
        "test_a_batch_has_no_more_transactions_or_bytes",
    ),
    "batch_bytes_max": (
        "node/test_batches.py",
        "test_a_batch_has_no_more_transactions_or_bytes",
    ),
    "batch_changes_max": (
        "node/test_batches.py",
        "test_a_batch_has_no_more_changes_than_the_writer_makes_in_a_moment",
    ),
    "parallel_queries_max": (
        "protocol/test_session.py",
        "test_only_so_many_queries_are_evaluated_at_a_time",
    ),
    "mutation_jobs_running_max": ("node/test_limits.py", "test_so_many_jobs_run_at_a_time"),
    "action_jobs_running_max": (
        "node/test_action_places.py",
        "test_scheduled_actions_and_those_that_clients_ask_for_do_not_wait_for_each_other",
    ),
    "job_results_s_max": (
        "node/test_jobs.py",
        "test_what_has_ended_is_kept_a_week_and_what_waits_for_ever",
    ),
    "jobs_waiting_max": (
        "node/test_jobs.py",
        "test_neither_mutations_nor_actions_wait_behind_many_of_the_other",
    ),
    "jobs_look_bytes_max": (
        "node/test_jobs.py",
        "test_a_look_at_what_is_due_reads_so_many_bytes_and_keeps_no_arguments",
    ),
    "jobs_put_off_max": (
        "node/test_jobs.py",
        "test_while_too_many_are_put_off_no_others_of_their_kind_begin",
    ),
    "job_backoff_s": (
        "node/test_jobs.py",
        "test_a_job_that_the_engine_has_no_room_for_is_tried_again",
    ),
    "job_backoff_s_max": (
        "node/test_jobs.py",
        "test_a_job_that_the_engine_has_no_room_for_is_tried_again",
    ),
    "conflict_retries_max": (
        "node/test_executions.py",
        "test_a_mutation_is_tried_again_after_longer_and_longer_and_then_runs_alone",
    ),
    "retry_backoff_s": (
        "node/test_executions.py",
        "test_a_mutation_is_tried_again_after_longer_and_longer_and_then_runs_alone",
    ),
    "retry_backoff_s_max": (
        "node/test_executions.py",
        "test_a_mutation_is_tried_again_after_longer_and_longer_and_then_runs_alone",
    ),
    # There is no room within the caller's patience: Overloaded, nothing was done.
    "staged_count_max": (
        "node/test_staged_histories.py",
        "test_staging_is_bounded_and_says_overloaded",
    ),
    "staged_bytes_max": ("node/test_limits.py", "test_what_is_staged_is_bounded_by_bytes_too"),
    "index_unfolded_bytes_max": (
        "node/test_search.py",
        "test_who_writes_faster_than_an_index_is_folded_waits_and_is_then_refused",
    ),
    "mutation_patience_s": (
        "node/test_staged_histories.py",
        "test_staging_is_bounded_and_says_overloaded",
    ),
    "lane_deadline_s": (
        "node/test_limits.py",
        "test_the_engine_waits_longer_for_the_lane_than_others",
    ),
    "concurrent_actions_max": (
        "node/test_action_places.py",
        "test_whoever_has_waited_its_patience_is_told_why_and_nothing_was_done",
    ),
    "action_patience_s": (
        "node/test_action_places.py",
        "test_whoever_has_waited_its_patience_is_told_why_and_nothing_was_done",
    ),
    "past_patience_s": (
        "node/test_past_annexes.py",
        "test_who_waits_for_the_timestamps_of_others_has_a_patience",
    ),
    "http_bodies_bytes_max": (
        "protocol/test_http.py",
        "test_more_of_bodies_than_fits_is_refused_and_operators_are_not",
    ),
    "http_requests_max": ("protocol/test_http.py", "test_more_requests_than_fit_are_refused"),
    "connections_max": (
        "node/test_server.py",
        "test_more_connections_than_fit_are_refused_and_the_others_go_on",
    ),
    "sessions_max": ("protocol/test_session.py", "test_more_sessions_than_fit_are_refused"),
    "STORE_READERS_MAX": (
        "contract/test_store.py",
        "test_a_full_table_of_snapshots_is_said_so",
    ),
    # The disk is full: StoreFull, nothing was done.
    "SECONDS_MAX": (
        "unit/model/test_limits.py",
        "test_what_bounds_nothing_is_refused_by_name",
    ),
    "data_bytes_max": (
        "contract/test_store.py",
        "test_a_batch_that_does_not_fit_is_refused_and_nothing_of_it_written",
    ),
    # Older ones go; who needed them starts anew or is told OutOfRetention.
    "history_count_max": (
        "unit/log/test_recent.py",
        "test_the_oldest_go_a_few_at_a_time_when_there_are_too_many",
    ),
    "history_bytes_max": (
        "unit/log/test_recent.py",
        "test_the_oldest_go_when_they_are_too_large",
    ),
    "log_age_s_max": (
        "node/test_retention.py",
        "test_what_is_too_old_goes_and_the_rest_is_sound_and_can_be_read",
    ),
    "log_bytes_max": (
        "node/test_retention.py",
        "test_what_is_too_much_goes_and_what_was_written_lately_stays",
    ),
    "log_age_s_min": (
        "node/test_retention.py",
        "test_what_is_too_much_goes_and_what_was_written_lately_stays",
    ),
    "past_bytes_max": (
        "node/test_past_annexes.py",
        "test_states_are_read_back_from_files",
    ),
    "past_disk_bytes_max": (
        "node/test_past_annexes.py",
        "test_so_much_disk_is_taken_and_idle_ones_go_first",
    ),
    "past_count_max": (
        "node/test_past.py",
        "test_so_many_timestamps_are_kept_and_the_oldest_are_taken_back_anew",
    ),
    "executions_kept_max": (
        "node/test_executions.py",
        "test_as_many_executions_are_kept_as_are_wanted",
    ),
    "executions_bytes_max": (
        "node/test_executions.py",
        "test_of_executions_that_print_much_fewer_are_kept",
    ),
    "session_records_max": (
        "node/test_sessions.py",
        "test_old_records_go_and_a_replay_below_them_is_refused",
    ),
    "session_record_age_s_min": (
        "node/test_sessions.py",
        "test_old_records_go_and_a_replay_below_them_is_refused",
    ),
    "session_silence_s_max": (
        "node/test_sessions.py",
        "test_silent_sessions_are_swept_and_others_stay",
    ),
    "query_cache_bytes_max": ("node/test_limits.py", "test_a_cache_without_room_keeps_nothing"),
    "query_time_age_s_max": (
        "node/test_limits.py",
        "test_an_answer_that_saw_the_clock_is_served_no_longer_than_this",
    ),
    "snapshot_age_s_max": (
        "node/test_limits.py",
        "test_who_outlives_its_snapshot_runs_again_and_is_then_refused",
    ),
    "client_past_s_max": (
        "node/test_hosts_remote.py",
        "test_the_far_past_is_for_administrators",
    ),
    "queries_batched_max": (
        "protocol/test_http.py",
        "test_a_batch_of_too_many_queries_is_refused",
    ),
    "clock_jump_s_max": (
        "node/test_commit_clock.py",
        "test_a_leap_of_over_an_hour_is_not_believed",
    ),
    # A client is told, or sent away.
    "message_bytes_max": (
        "node/test_server.py",
        "test_a_message_over_the_limit_ends_its_connection_alone",
    ),
    "headers_bytes_max": (
        "node/test_server.py",
        "test_headers_over_the_limit_end_their_connection_alone",
    ),
    "http_body_bytes_max": ("protocol/test_http.py", "test_a_body_over_the_limit_is_refused"),
    "http_body_s_max": (
        "protocol/test_http.py",
        "test_a_body_that_trickles_takes_no_place_and_ends_at_its_deadline",
    ),
    "mutations_queued_max": (
        "protocol/test_protocol.py",
        "test_too_many_waiting_mutations_pause_reading_until_one_has_begun",
    ),
    "actions_in_flight_max": (
        "protocol/test_protocol.py",
        "test_one_action_too_many_fails_and_the_others_run_on",
    ),
    "actions_bytes_max": (
        "protocol/test_protocol.py",
        "test_actions_with_too_much_to_hold_fail_and_a_large_one_runs_alone",
    ),
    "mutations_queued_bytes_max": (
        "protocol/test_protocol.py",
        "test_a_full_lane_pauses_reading_until_it_has_room",
    ),
    "queries_per_session_max": (
        "protocol/test_protocol.py",
        "test_removed_queries_that_nobody_was_told_of_cannot_pile_up",
    ),
    "results_bytes_max": (
        "protocol/test_session.py",
        "test_a_client_that_shows_too_much_is_sent_away_alone",
    ),
    "queries_bytes_max": (
        "protocol/test_protocol.py",
        "test_large_arguments_send_the_client_away",
    ),
    "unsent_bytes_max": (
        "protocol/test_session.py",
        "test_a_client_that_leaves_too_much_unread_is_sent_away",
    ),
    "unsent_transitions_max": (
        "protocol/test_session.py",
        "test_changes_coalesce_while_a_client_does_not_read",
    ),
    "transition_bytes_max": (
        "protocol/test_parts.py",
        "test_a_large_transition_goes_in_parts_to_who_takes_them",
    ),
    "transition_part_bytes_max": (
        "protocol/test_parts.py",
        "test_a_transition_in_parts_is_one_between_its_neighbours",
    ),
    "send_s_max": (
        "protocol/test_session.py",
        "test_a_client_that_never_reads_again_is_given_up",
    ),
    "ping_s": ("protocol/test_session.py", "test_a_ping_breaks_the_silence"),
    "inactivity_s_max": (
        "node/test_server.py",
        "test_a_client_that_is_silent_is_asked_and_then_cut_off",
    ),
    "drain_s": (
        "node/test_server.py",
        "test_closing_sends_clients_away_and_frees_the_port",
    ),
    # A value that cannot be: InvalidValue, with its place and the number.
    "VALUE_NESTING_MAX": (
        "unit/model/test_values.py",
        "test_values_nest_64_deep_and_no_deeper",
    ),
    "ARRAY_ITEMS_MAX": (
        "unit/model/test_values.py",
        "test_arrays_and_objects_have_their_limits",
    ),
    "OBJECT_FIELDS_MAX": (
        "unit/model/test_values.py",
        "test_arrays_and_objects_have_their_limits",
    ),
    "FIELD_NAME_BYTES_MAX": ("node/test_limits.py", "test_names_of_fields_have_an_end"),
    "CREATION_TIME_MAX": ("node/test_imports.py", "test_what_no_document_has_is_refused"),
    "TABLE_NUMBER_IMPORTED_MAX": (
        "node/test_imports.py",
        "test_what_no_document_has_is_refused",
    ),
    "TABLES_MAX": ("node/test_limits.py", "test_so_many_tables_and_no_more"),
    "PAGE_ITEMS_MAX": (
        "node/test_pages.py",
        "test_a_page_longer_than_any_is_refused_with_what_to_do",
    ),
    "QUERY_FILTERS_MAX": (
        "node/test_query_rules.py",
        "test_a_query_that_cannot_be_is_refused_by_name",
    ),
    "FILTER_NESTING_MAX": (
        "node/test_query_rules.py",
        "test_a_query_that_cannot_be_is_refused_by_name",
    ),
    "SEARCH_CANDIDATES_MAX": (
        "node/test_search.py",
        "test_nobody_looks_at_more_than_the_first_1024_that_are_found",
    ),
    "SEARCH_FILTERS_MAX": (
        "node/test_search.py",
        "test_a_search_that_does_not_fit_its_index_is_refused",
    ),
    **dict.fromkeys(
        ("VECTOR_RESULTS", "VECTOR_RESULTS_MAX", "VECTOR_FILTERS_MAX"),
        ("node/test_vector_search.py", "test_a_search_that_cannot_be_is_refused"),
    ),
    # A token that cannot be: InvalidAuthHeader; its provider's keys: Unreachable.
    "TOKEN_CHARS_MAX": (
        "protocol/test_identity.py",
        "test_a_token_of_more_characters_than_a_header_has_is_not_looked_at",
    ),
    # A header that cannot be: the request is refused with 400.
    "IDEMPOTENCY_KEY_CHARS_MAX": (
        "node/test_idempotency_keys.py",
        "test_a_key_is_of_a_bounded_length",
    ),
    "KEY_SET_BYTES_MAX": (
        "protocol/test_identity.py",
        "test_a_provider_without_keys_is_unreachable",
    ),
    # A declaration that cannot be: DeclarationError, with file and line.
    "IDENTIFIER_LENGTH_MAX": (
        "node/test_table_names.py",
        "test_a_table_that_no_schema_could_name_is_not_made",
    ),
    "CRON_RUNS_KEPT": ("node/test_crons.py", "test_the_last_runs_of_a_cron_are_kept_in_its_row"),
    "CRON_ERROR_LENGTH_MAX": (
        "node/test_crons.py",
        "test_the_last_runs_of_a_cron_are_kept_in_its_row",
    ),
    "CRON_ARGS_BYTES_MAX": (
        "unit/app/test_crons.py",
        "test_what_cannot_be_is_refused_at_its_line",
    ),
    "CRON_NAME_LENGTH_MAX": (
        "unit/app/test_crons.py",
        "test_what_cannot_be_is_refused_at_its_line",
    ),
    "VALIDATOR_NESTING_MAX": (
        "unit/app/test_validators.py",
        "test_validators_nest_128_deep_and_no_deeper",
    ),
    "INDEX_FIELDS_MAX": (
        "unit/app/test_schema.py",
        "test_what_cannot_be_is_refused_with_its_reason",
    ),
    "FILTER_FIELDS_MAX": (
        "unit/app/test_schema.py",
        "test_what_cannot_be_is_refused_with_its_reason",
    ),
    "VECTOR_DIMENSIONS_MIN": (
        "unit/app/test_schema.py",
        "test_what_cannot_be_is_refused_with_its_reason",
    ),
    "VECTOR_DIMENSIONS_MAX": (
        "unit/app/test_schema.py",
        "test_what_cannot_be_is_refused_with_its_reason",
    ),
    "TABLE_INDEXES_MAX": (
        "unit/app/test_schema.py",
        "test_a_table_has_so_many_indexes_and_no_more",
    ),
    # An opening waits so long.
    "ORPHAN_WRITER_S_MAX": (
        "crash/test_store_kill.py",
        "test_an_orphaned_writer_is_waited_for",
    ),
}
OF_THE_FORMAT: Final = {
    "WARNING_RATIO",
    "STORE_KEY_BYTES_MAX",
    "ENTRY_TAIL_BYTES",
    "ENTRY_DIGEST_BYTES",
    "ENTRY_HEAD_BYTES",
    "STORE_MAP_BYTES",
    "USER_TABLE_NUMBER_MIN",
    "SYSTEM_TABLE_NUMBER_MIN",
}
"""Nobody reaches these: keys and numbers are made to fit them."""


KNOWN: Final = {one.name for one in fields(Limits)} | {
    name for name in vars(module) if name.isupper() and not name.startswith("_")
}


def test_every_limit_is_on_one_of_the_lists() -> None:
    assert sorted(KNOWN) == sorted([*OF_ONE_FUNCTION, *ELSEWHERE, *OF_THE_FORMAT])


def test_whatever_an_error_or_a_warning_calls_a_limit_stands_with_the_others() -> None:
    named = {
        (str(file.relative_to(ROOT)), name)
        for file in (ROOT / "engine").rglob("*.py")
        for name in limits_named_in(ast.parse(file.read_text()))
    }

    assert ("engine/transaction/pagination.py", "PAGE_ITEMS_MAX") in named
    assert not {(file, name) for file, name in named if name not in KNOWN}


def limits_named_in(tree: ast.AST) -> Iterator[str]:
    """Of `LimitExceeded("NAME", ...)` and `usage.note("NAME", ...)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="LimitExceeded") | ast.Attribute(attr="note"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


@pytest.mark.parametrize("limit", ELSEWHERE)
def test_what_becomes_of_the_caller_is_seen_in_a_test_that_is_there(limit: str) -> None:
    file, name = ELSEWHERE[limit]

    assert name in functions_in(ROOT / "tests" / file)


@cache
def functions_in(file: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


async def test_an_engine_with_a_limit_that_bounds_nothing_is_not_opened() -> None:
    with pytest.raises(UsageError, match="documents_read_max has to be a whole number"):
        async with Engine.open(":memory:", app=None, limits=Limits(documents_read_max=-1)):
            pass


# Those that have no better place.


@asynccontextmanager
async def full(limits: Limits, *args: int) -> AsyncIterator[Node]:
    """A node with one `insert` on its way to a disk that stands still for a minute."""
    store = MemoryStore()
    async with serving(APP, store=store, limits=limits) as node, trio.open_nursery() as nursery:
        hold = store.hold()
        nursery.start_soon(mutate, node, insert, *args)
        await trio.testing.wait_all_tasks_blocked()
        try:
            with trio.fail_after(60):
                yield node
        finally:
            hold.release()


async def test_what_is_staged_is_bounded_by_bytes_too(autojump_clock: MockClock) -> None:
    async with full(Limits(staged_bytes_max=1_000, mutation_patience_s=3), 2, 1_000) as node:
        with pytest.raises(Overloaded, match="had no room for 3 s"):
            await mutate(node, insert, 1)


async def test_the_engine_waits_longer_for_the_lane_than_others(autojump_clock: MockClock) -> None:
    limits = Limits(staged_count_max=1, mutation_patience_s=3, lane_deadline_s=7)
    async with full(limits, 1) as node:
        with pytest.raises(Overloaded, match="had no room for 7 s"):
            await node.functions.turns.write(lambda _: None)


async def test_so_many_jobs_run_at_a_time(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store, limits=Limits(mutation_jobs_running_max=2)) as node:
        await mutate(node, schedule, 5)
        disk = store.hold()
        await disk.wait_reached()
        await trio.sleep(30)
        at_once = staged(node)
        disk.release()
        await node.scheduler.wait_resting()
        ended = [record.path for _, record in node.functions.executions.after(0)]

    assert 2 == at_once
    assert 5 == ended.count(f"{MODULE}:take")


def staged(node: Node) -> int:
    committer = node.committer
    return len(committer._pending) + len(committer._in_flight)


@query
async def tell_the_time(ctx: QueryCtx) -> float:
    return ctx.now_ms


async def test_an_answer_that_saw_the_clock_is_served_no_longer_than_this(
    autojump_clock: MockClock,
) -> None:
    async with serving([tell_the_time], limits=Limits(query_time_age_s_max=17)) as node:
        first = await ask(node, tell_the_time)
        await trio.sleep(16)
        kept = await ask(node, tell_the_time)
        await trio.sleep(2)
        fresh = await ask(node, tell_the_time)

    assert (first, first + 18_000) == (kept, fresh)


async def test_a_cache_without_room_keeps_nothing(autojump_clock: MockClock) -> None:
    async with serving([tell_the_time], limits=Limits(query_cache_bytes_max=0)) as node:
        first = await ask(node, tell_the_time)
        await trio.sleep(1)

        assert first + 1_000 == await ask(node, tell_the_time)


@mutation
async def name_a_field(ctx: MutationCtx, length: int) -> None:
    await ctx.db.insert("things", {"x" * length: 1})


async def test_names_of_fields_have_an_end(autojump_clock: MockClock) -> None:
    async with serving([name_a_field]) as node:
        await mutate(node, name_a_field, 1024)
        with pytest.raises(InvalidValue, match="a field name has 1025 bytes, at most 1024 fit"):
            await mutate(node, name_a_field, 1025)


clock: MockClock
has_read: list[trio.Event] = []
inserted: list[None] = []


@query
async def take_long(ctx: QueryCtx) -> None:
    """Reads, and again when there is a newer snapshot and time has passed, as if by itself."""
    run = next(number for number, event in enumerate(has_read) if not event.is_set())
    await ctx.db.query("things").first()
    has_read[run].set()
    while len(inserted) <= run:
        await ctx.db.normalize_id("things", "")
    clock.jump(11)
    await ctx.db.query("things").first()


async def test_who_outlives_its_snapshot_runs_again_and_is_then_refused(
    autojump_clock: MockClock,
) -> None:
    global clock
    clock = autojump_clock
    has_read[:], inserted[:] = [trio.Event() for _ in range(3)], []

    async def disturb() -> None:
        for event in has_read:
            await event.wait()
            await mutate(node, insert, 1)
            inserted.append(None)

    limits = Limits(slice_rows_max=1, snapshot_age_s_max=10)
    async with serving([take_long, *APP], limits=limits) as node:
        await mutate(node, insert, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disturb)
            with pytest.raises(FunctionTimeout, match="longer than a snapshot may be held"):
                await ask(node, take_long)
        (left,) = [one for _, one in node.functions.executions.after(0) if one.error is not None]
        assert (SNAPSHOT_TOO_OLD,) * 3 == left.retries
        assert 4 == await ask(node, read, 10)


@mutation
async def insert_into(ctx: MutationCtx, tables: list[str]) -> None:
    for table in tables:
        await ctx.db.insert(table, {})


async def test_so_many_tables_and_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.transaction.transaction.TABLES_MAX", 20)
    async with serving([insert_into]) as node:
        few = {"tables": [f"t{number}" for number in range(16)]}
        result = await node.functions.mutation(f"{MODULE}:insert_into", few, caller=ADMIN)
        assert ("[WARN] 'tables: 16 of at most 20 (TABLES_MAX)'",) == result.log_lines
        with pytest.raises(LimitExceeded, match=r"limit of 20 \(TABLES_MAX\)"):
            await mutate(node, insert_into, [f"t{number}" for number in range(21)])
