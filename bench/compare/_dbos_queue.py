"""
DBOS with a queue that has a bound, in a process of its own.

    python -m bench.compare._dbos_queue URL WORKS PARALLELISM EVERY

Of the workflows every `EVERY`th, unless that is 0, has a step that fails once.  Prints how long it
took from the first that was enqueued to the last that has ended.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

from dbos import DBOS

QUEUE: Final = "bench"
POLLING_S: Final = 0.05

tried: set[int] = set()


@DBOS.step(retries_allowed=True, max_attempts=3, interval_seconds=0.01)
def step(number: int) -> None:
    if number not in tried:
        tried.add(number)
        raise ValueError("for the first time")


@DBOS.workflow()
def work(number: int, every: int) -> None:
    if every and number % every == 0:
        step(number)


def main(url: str, works: int, parallelism: int, every: int) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "CRITICAL"})
    DBOS.launch()
    DBOS.register_queue(QUEUE, concurrency=parallelism, polling_interval_sec=POLLING_S)
    began = time.perf_counter()
    handles: list[Any] = [DBOS.enqueue_workflow(QUEUE, work, n, every) for n in range(works)]
    for handle in handles:
        handle.get_result()
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    os._exit(0)  # its threads would be waited for


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
