"""
DBOS with a queue of workflows that do nothing, in a process of its own.

    python -m bench.compare._dbos URL JOBS THREADS

It enqueues so many, from so many threads, waits until all have run, and prints how long each of the
two took, as JSON.  With its settings as they come, but that it looks for work ten times a second.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from dbos import DBOS

QUEUE: Final = "bench"
POLLING_S: Final = 0.1
LAST: Final = 32
"""Of so many it is asked whether their end is durable, too: each is asked of in turn."""

count = 0
counting = threading.Lock()


@DBOS.workflow()
def nothing(_number: int) -> None:
    global count
    with counting:
        count += 1


def main(url: str, jobs: int, enqueuers: int) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL"})
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLLING_S)
    began = time.perf_counter()
    with ThreadPoolExecutor(enqueuers) as threads:
        handles: list[Any] = list(
            threads.map(lambda n: DBOS.enqueue_workflow(QUEUE, nothing, n), range(jobs))
        )
    enqueued = time.perf_counter()
    while count < jobs:
        time.sleep(0.005)
    for handle in handles[-LAST:]:
        handle.get_result()
    ended = time.perf_counter()
    print(json.dumps({"enqueue_s": enqueued - began, "run_s": ended - enqueued}), flush=True)
    os._exit(0)  # its threads would be waited for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
