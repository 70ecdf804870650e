"""
Every number that bounds something, with its reason.

A `Limits` is handed to the engine when it is opened; whoever needs a bound is
given it, so a test or an application may tighten or widen any of them:

    Engine.open(..., limits=Limits(documents_read_max=64_000))

    [tool.headrace.limits]         in pyproject.toml, for `dev` and `serve`
    documents_read_max = 64000

What stands alone, in capitals, is fixed: it is part of a format, of what clients assume, or of
what is declared.  How much background work does before others have their turn is no limit; it
stands, measured, where that work is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final

from engine.errors import UsageError

VALUE_BYTES_MAX: Final = 32 << 20
"""Any value at all, the data of an error too; the clients assume it."""
VALUE_NESTING_MAX: Final = 64
"""Deep enough for people, shallow enough for recursion in C and Python alike."""
VALIDATOR_NESTING_MAX: Final = 2 * VALUE_NESTING_MAX
"""Of two validators one within the other, one may be a union: as deep as values, and shallow
enough to be walked by recursion."""
ARRAY_ITEMS_MAX: Final = 8192
OBJECT_FIELDS_MAX: Final = 1024
FIELD_NAME_BYTES_MAX: Final = 1024
IDENTIFIER_LENGTH_MAX: Final = 64
CRON_NAME_LENGTH_MAX: Final = 256
CRON_ARGS_BYTES_MAX: Final = 1 << 20
"""As of a document: each run writes them, into the row of the cron and into that of its tick."""
CRON_RUNS_KEPT: Final = 5
"""The last ones of each cron are in its row, which is written at each run."""
CRON_ERROR_LENGTH_MAX: Final = 1_000
"""Characters of the error of such a run."""
SHOWN_LENGTH_MAX: Final = 400
"""Characters of a value or a validator in an error; people read it in a terminal."""
ERROR_LENGTH_MAX: Final = 32_768
"""Characters of an error's text, as of a log line: every client that shows the query is told it,
and a thousand of them are remembered."""
DOCUMENT_BYTES_MAX: Final = 1 << 20
"""One row must stay cheap to copy through the log, the overlay and a transition."""
DOCUMENT_NESTING_MAX: Final = 16
WARNING_RATIO: Final = 0.8
"""A log line warns a function that used this part of any limit."""
INDEX_FIELDS_MAX: Final = 16
"""Counting the implicit `_creationTime`."""
FILTER_FIELDS_MAX: Final = 16
"""Of a search or vector index."""
VECTOR_DIMENSIONS_MIN: Final = 2
VECTOR_DIMENSIONS_MAX: Final = 4096
TABLE_INDEXES_MAX: Final = 64
"""In a declaration: every write keeps them up. Those that a push replaces are kept up with them."""
TABLES_MAX: Final = 10_000
LOAD_S_MAX: Final = 10.0
"""To import the modules of an application; who saves a file waits for it."""
SECONDS_MAX: Final = 10**9
"""Some thirty years: who wants no end says that, and timers of the system take no more."""
SCHEDULE_S_MAX: Final = 5 * 366 * 86_400
"""From now to when a scheduled function is due, in either direction, as in Convex: whoever takes
seconds for milliseconds, or the reverse, is told."""
BACKOFF_S_MAX: Final = 7 * 86_400
"""Between two attempts of an action that is tried again: later nobody waits for it any more."""
ATTEMPTS_MAX: Final = 10**9
"""Who wants no end says that; they are counted as floats, which are exact up to there."""
CONTEXT_BYTES_MAX: Final = 1 << 20
"""Of what `on_complete` is given back; it is in the row of the job, and in that of the call."""
TOLD_BYTES_MAX: Final = 8 << 20
"""Of a result that `on_complete` is told, so that it can be called: of a larger one the size."""
CREATION_TIME_MAX: Final = 2.0**53

QUERY_FILTERS_MAX: Final = 256
"""Of one query, as in Convex: each is asked of every document that is read."""
FILTER_NESTING_MAX: Final = 64
"""Of an expression, as deep as a value: each document that is read evaluates it by recursion."""
PAGE_ITEMS_MAX: Final = 32_000
"""As many as a function may read in Convex; clients ask for no more."""
SEARCH_TERMS_MAX: Final = 16
"""The first ones, as in Convex; a log line warns of more."""
SEARCH_TERM_BYTES_MAX: Final = 32
"""Words as long are nobody's to look for: they are left out of texts and searches alike."""
SEARCH_FILTERS_MAX: Final = 8
"""As in Convex."""
SEARCH_CANDIDATES_MAX: Final = 1_024
"""Documents that one search may look at, best first, as in Convex: nobody reads further."""
VECTOR_RESULTS_MAX: Final = 256
"""Of a vector search, as in Convex; `VECTOR_RESULTS` where it does not say how many."""
VECTOR_RESULTS: Final = 10
VECTOR_FILTERS_MAX: Final = 64
"""Values that the filter of a vector search compares with, as in Convex."""

TOKEN_CHARS_MAX: Final = 1 << 16
"""A token comes in a header, and is looked at before anybody is known."""
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
"""Room for any way to write a random number, and no more than a header is read for."""
KEY_SET_BYTES_MAX: Final = 1 << 20
"""What an identity provider answers, which may be anything."""
DOCUMENTS_SHOWN_MAX: Final = 10_000
DOCUMENTS_SHOWN_BYTES_MAX: Final = 4 << 20
"""An answer to an operator ends here, and its cursor leads on."""
RECORDS_SHOWN_MAX: Final = 1_000

STORE_KEY_BYTES_MAX: Final = 511
"""LMDB's own."""
ENTRY_TAIL_BYTES: Final = 9 + 16
"""What every entry key ends with: an encoded `_creationTime` and the document's id."""
ENTRY_DIGEST_BYTES: Final = 32
ENTRY_HEAD_BYTES: Final = 450
"""What is left of a store key beside the index id, a digest and the tail. Fields that take as much,
or more, are bucketed under their first bytes, and none that take less."""
assert 4 + ENTRY_HEAD_BYTES + ENTRY_DIGEST_BYTES + ENTRY_TAIL_BYTES == STORE_KEY_BYTES_MAX
STORE_MAP_BYTES: Final = 1 << 40
"""Address space of a store, taken once: to resize the map would end every open snapshot."""
STORE_READERS_MAX: Final = 1024
"""Slots of open snapshots, in all processes together."""
ORPHAN_WRITER_S_MAX: Final = 5.0
"""How long opening waits for the writer process of a killed engine to finish its last batch."""

USER_TABLE_NUMBER_MIN: Final = 10_001
TABLE_NUMBER_IMPORTED_MAX: Final = 1 << 24
"""Of a table whose documents bring their ids: the next ones are counted on from there, and above
2^30 numbers of tables would meet those of indexes."""
SYSTEM_TABLE_NUMBER_MIN: Final = 513


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one engine. Sizes in bytes, durations in seconds unless the name says otherwise."""

    # One function.
    args_bytes_max: int = 16 << 20
    result_bytes_max: int = 16 << 20
    documents_read_max: int = 32_000
    bytes_read_max: int = 16 << 20
    """As they are stored; whatever else counts bytes takes those of `values.measure`."""
    ranges_read_max: int = 4_096
    documents_written_max: int = 16_000
    bytes_written_max: int = 16 << 20
    functions_scheduled_max: int = 1_000
    scheduled_args_bytes_max: int = 16 << 20
    crons_max: int = 4_096
    """Of an engine, its components included, beyond which functions register no more: a push goes
    through all of them while mutations wait, for 0.4 s. Those that code declares count."""
    call_depth_max: int = 8
    user_time_s_max: float = 1.0
    """Code of the application in a query or mutation; it holds everyone up."""
    system_time_s_max: float = 15.0
    action_time_s_max: float = 600.0
    stuck_s_max: float = 30.0
    """A C call that cannot be interrupted for this long aborts the process, stacks on stderr."""
    log_lines_max: int = 256
    log_line_bytes_max: int = 32_768

    # The slice between two checkpoints of a transaction.
    slice_rows_max: int = 256
    slice_s_max: float = 0.005

    # Committer.
    batch_count_max: int = 512
    batch_bytes_max: int = 8 << 20
    """A batch holds the disk; the next one gathers meanwhile."""
    batch_changes_max: int = 10_000
    """Records, rows and entries of a batch. The writer needs 2 to 10 microseconds for each, however
    small: whoever shares a batch waits a tenth of a second for the others, and not several."""
    index_unfolded_bytes_max: int = 64 << 20
    """Of a text or vector index in memory, before a thread has made a segment of it, which it does
    from some megabytes or half of this on. Who writes faster waits his patience, and is refused."""
    staged_count_max: int = 4_096
    staged_bytes_max: int = 64 << 20
    """Transactions may be ahead of the disk by this much; then mutations wait their patience."""
    mutation_patience_s: float = 5.0
    lane_deadline_s: float = 20.0
    conflict_retries_max: int = 4
    retry_backoff_s: float = 0.1
    retry_backoff_s_max: float = 2.0
    clock_jump_s_max: float = 3600.0

    # Snapshots and history.
    snapshot_age_s_max: float = 10.0
    """A read transaction held longer makes LMDB keep pages it will never give back."""
    client_past_s_max: float = 30.0
    """Clients ask what is newest, and then several queries as of that; Convex keeps it as long.
    What was deleted is still there in the past, so further back it is for administrators."""
    history_count_max: int = 8_192
    history_bytes_max: int = 64 << 20
    """The newest commits stay in memory, this much of their records, several times that decoded.
    A follower that is further behind starts anew."""
    log_age_s_max: float = 30 * 86_400.0
    log_bytes_max: int = 16 << 30
    """Records of the log that are older, or more, go: the past can be read for as long as it is
    there, and a disk is not to be filled by it alone."""
    log_age_s_min: float = 3_600.0
    """What follows the log may be this far behind, so nothing younger goes."""
    past_bytes_max: int = 128 << 20
    """Rows as they were, kept in memory for reads in the past, several times that decoded. Each
    timestamp has its share; those since which more was changed have a file."""
    past_disk_bytes_max: int = 16 << 30
    """Of these files: as much as the log, which has every row in them, so that its beginning can
    be read. Beyond, those that nobody reads go first."""
    past_count_max: int = 8
    """Timestamps of which that is kept, and which are read at a time: as many screens of
    operators."""
    past_patience_s: float = 60.0
    """Who asks for another waits as long for one of them to be read, and for what is taken back for
    others before: of two million commits and an index of them that is half of it."""
    data_bytes_max: int = 1 << 40
    executions_kept_max: int = 1_000
    """Records of what ran, for `headrace logs` to begin with."""
    executions_bytes_max: int = 64 << 20
    """Log lines and errors of the last executions, in memory: each may have printed 8 MiB, and a
    thousand are remembered. The oldest go."""

    # Queries.
    query_cache_bytes_max: int = 100 << 20
    query_time_age_s_max: float = 17.0
    """A cached result that saw the clock is served no longer than this."""

    # Actions.
    concurrent_actions_max: int = 64
    """Each may hold a thread and connections. Those that actions call go on in the place of their
    caller, or all could wait for one another; scheduled ones have places of their own, below."""
    action_patience_s: float = 10.0
    """Actions take seconds, so a place may come free meanwhile; people wait no longer."""

    # Scheduled functions.
    mutation_jobs_running_max: int = 64
    """They run one after another, and half of them wait for the disk together: with fewer, what a
    batch costs is shared by too few."""
    action_jobs_running_max: int = 32
    """Beside `concurrent_actions_max`: crons run while clients are many, and vice versa."""
    jobs_waiting_max: int = 1_000
    """Of a component and of a kind, that are due and kept in memory, without arguments; the others
    are read when half of these have begun."""
    jobs_look_bytes_max: int = 1 << 20
    """Rows of jobs that are due, their arguments included, which are read before others have their
    turn; one at least, which may have 16 MiB."""
    jobs_put_off_max: int = 10_000
    """Of a component and of a kind, that the engine had no room for and tries again; while there
    are so many no others of them begin."""
    job_backoff_s: float = 0.5
    """A job that the engine had no room for is tried again after this, then twice this, ..."""
    job_backoff_s_max: float = 7200.0

    job_results_s_max: float = 7 * 86_400.0
    """How long a scheduled function that has ended can be looked at, as in Convex."""

    # One client.
    message_bytes_max: int = 64 << 20
    http_body_bytes_max: int = 16 << 20
    http_body_s_max: float = 60.0
    """From the head of a request to the end of its body: the largest need 2.2 Mbit/s."""
    headers_bytes_max: int = 64 << 10
    """Of a request, its path and query included, that are read and have not ended."""
    mutations_queued_max: int = 1_000
    mutations_queued_bytes_max: int = 64 << 20
    """What waits, as text, in one session's lane; beyond, it stops reading until it has room."""
    actions_in_flight_max: int = 1_000
    actions_bytes_max: int = 64 << 20
    """Arguments, as text, of one session's actions that run or wait for a place; one more fails."""
    queries_per_session_max: int = 4_096
    queries_bytes_max: int = 64 << 20
    """Arguments, encoded, and journals of the queries that one session shows."""
    results_bytes_max: int = 256 << 20
    """Of all queries that one session is told at a time, which is one message; beyond, the client
    is sent away."""
    parallel_queries_max: int = 20
    """Of one session, evaluated at a time."""
    unsent_bytes_max: int = 64 << 20
    """A client that lets more than this pile up unread is disconnected."""
    transition_bytes_max: int = 5 << 20
    """A larger one goes in parts, to clients that put them together: Convex's number."""
    transition_part_bytes_max: int = 1 << 20
    """On a slow line a part is there within the minute after which clients take us for dead."""
    send_s_max: float = 120.0
    """One message that takes longer to leave: that client has stopped reading."""
    queries_batched_max: int = 1_000
    """Of one HTTP request, which are asked one after another as of one timestamp."""
    connections_max: int = 16_384
    """Each is a file descriptor, and one that says nothing stays for over a minute: more than
    sessions and requests together, and no more."""
    sessions_max: int = 10_000
    http_requests_max: int = 1_024
    """That are worked on; those whose body is not there yet are none of them."""
    http_bodies_bytes_max: int = 256 << 20
    """Of bodies that are being read: sixteen of the largest, or as many small ones as there are
    connections."""
    unsent_transitions_max: int = 2
    ping_s: float = 15.0
    inactivity_s_max: float = 120.0
    """A client that sends nothing for half of this is pinged, and after all of it cut off."""
    drain_s: float = 10.0
    """SIGTERM: how long running work may take before the process exits; a crash is safe."""

    # Session records.
    session_records_max: int = 2_000
    session_record_age_s_min: float = 3600.0
    """A session keeps its newest answers, so many, and all that are younger: what it sends again is
    answered with them, and not done again."""
    session_silence_s_max: float = 14 * 86_400.0
    """Of a session that sent nothing for longer everything is forgotten."""

    def check(self) -> None:
        """
        Raises:
            UsageError: one of them bounds nothing, or two exclude each other.
        """
        for one in fields(self):
            _check(one.name, getattr(self, one.name), is_whole=one.type == "int")
        if self.call_depth_max > _CALL_DEPTH_HIGHEST:
            raise UsageError(
                f"call_depth_max is {self.call_depth_max:,} and cannot be over "
                f"{_CALL_DEPTH_HIGHEST}: each call within a call takes some of Python's stack"
            )
        for low, high in _ORDERED:
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"{low} is {getattr(self, low):,} and cannot be over {high}, "
                    f"which is {getattr(self, high):,}"
                )


_CALL_DEPTH_HIGHEST: Final = 64
"""A hundred calls within one another end well, four hundred in a RecursionError."""
_ORDERED: Final = (
    ("retry_backoff_s", "retry_backoff_s_max"),
    ("job_backoff_s", "job_backoff_s_max"),
    ("log_age_s_min", "log_age_s_max"),
    ("http_body_bytes_max", "http_bodies_bytes_max"),
    ("ping_s", "inactivity_s_max"),
)
_MAY_BE_ZERO: Final = ("conflict_retries_max", "functions_scheduled_max", "query_cache_bytes_max")
"""Counts and sizes of which none is an answer; of the others nothing could run."""
_LOWEST: Final = {"index_unfolded_bytes_max": 1 << 17}
"""An index that is empty takes up to half of that: below, nobody could ever write."""
_HAS_TO_LAST: Final = (
    "user_time_s_max",
    "system_time_s_max",
    "action_time_s_max",
    "stuck_s_max",
    "send_s_max",
    "ping_s",
    "inactivity_s_max",
)
"""Durations without which no function, push or connection comes to an end of its own."""


def limits_of(settings: Mapping[str, Any]) -> Limits:
    """
    The limits, some of them as `settings` has them.

    Raises:
        UsageError: there is no limit of that name, it is fixed, or it cannot be that.
    """
    known = [one.name for one in fields(Limits)]
    for name in settings:
        if name not in known:
            if isinstance(globals().get(name.upper()), int | float):
                raise UsageError(
                    f"the limit {name.upper()} is fixed: formats, clients or declarations rely on "
                    "it; only fields of Limits can be another"
                )
            close = get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else "they are in engine/model/limits.py"
            raise UsageError(f"there is no limit {name!r}; {hint}")
    limits = Limits(**settings)
    limits.check()
    return limits


def _check(name: str, value: object, *, is_whole: bool) -> None:
    if is_whole:
        lowest = 0 if name in _MAY_BE_ZERO else _LOWEST.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise UsageError(
                f"{name} has to be a whole number of at least {lowest:,}, not {value!r}"
            )
    elif (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or math.isnan(value)
        or value < 0
    ):
        raise UsageError(f"{name} has to be seconds, not negative, not {value!r}")
    elif value > SECONDS_MAX:
        raise UsageError(f"{name} has to be at most {SECONDS_MAX:,} seconds, not {value!r}")
    elif value == 0 and name in _HAS_TO_LAST:
        raise UsageError(f"{name} has to be more than 0 seconds: nothing could be done in them")
