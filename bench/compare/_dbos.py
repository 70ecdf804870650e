"""
DBOS with a queue of workflows, in a process of its own.

    python -m bench.compare._dbos URL JOBS THREADS nothing|row

A workflow does nothing, or it adds a row in a transaction of theirs, which counts once however
often the workflow begins.  It enqueues so many, from so many threads, waits until all have run,
looks whether each row is there once, and prints how long enqueuing and the rest took, as JSON.

With their settings as they come, but for what makes it quicker: they look for work more often, and
those that write are sixteen at a time, each with a connection of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from dbos import DBOS, SQLAlchemyDatasource
from sqlalchemy import text

QUEUE: Final = "bench"
POLLING_S: Final = 0.1
WRITING_AT_ONCE: Final = 16
WRITING_POLLING_S: Final = 0.02
LAST: Final = 32
"""Of so many it is asked whether their end is durable, too: each is asked of in turn."""

count = 0
counting = threading.Lock()


@DBOS.workflow()
def nothing(_number: int) -> None:
    _count()


def writer_of(url: str) -> tuple[Any, Any]:
    """A workflow that adds a row, and the engine of what it is added to."""
    if url.startswith("sqlite"):
        source = SQLAlchemyDatasource.create(f"{url}.rows")  # one writer at a time for each file
    else:
        source = SQLAlchemyDatasource.create(url, {"pool_size": WRITING_AT_ONCE})
    with source.engine.begin() as connection:
        connection.execute(text("CREATE TABLE bench_rows (number INTEGER)"))

    @source.transaction
    def add(number: int) -> None:
        source.sql_session().execute(
            text("INSERT INTO bench_rows (number) VALUES (:number)"), {"number": number}
        )

    @DBOS.workflow()
    def write(number: int) -> None:
        add(number)
        _count()

    return write, source.engine


def _count() -> None:
    global count
    with counting:
        count += 1


def main(url: str, jobs: int, enqueuers: int, each: str) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL"})
    workflow, rows = (nothing, None) if each == "nothing" else writer_of(url)
    DBOS.launch()
    if rows is None or url.startswith("sqlite"):
        DBOS.register_queue(QUEUE, polling_interval_sec=POLLING_S)
    else:
        DBOS.register_queue(
            QUEUE, worker_concurrency=WRITING_AT_ONCE, polling_interval_sec=WRITING_POLLING_S
        )
    began = time.perf_counter()
    with ThreadPoolExecutor(enqueuers) as threads:
        handles: list[Any] = list(
            threads.map(lambda n: DBOS.enqueue_workflow(QUEUE, workflow, n), range(jobs))
        )
    enqueued = time.perf_counter()
    while count < jobs:
        time.sleep(0.005)
    for handle in handles[-LAST:]:
        handle.get_result()
    ended = time.perf_counter()
    if rows is not None:
        with rows.begin() as connection:
            found = connection.execute(text("SELECT number FROM bench_rows ORDER BY 1")).scalars()
            assert list(found) == list(range(jobs)), "each was added once"
    print(json.dumps({"enqueue_s": enqueued - began, "run_s": ended - enqueued}), flush=True)
    os._exit(0)  # its threads would be waited for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
