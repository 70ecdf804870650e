"""
A server in production: from its first push to its last signal.

What it imports takes most of a start, so `serve` imports it only when the process is the one that
stays.
"""

from __future__ import annotations

import gc
import resource
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from engine.cli.deadline import STUCK_S, end_in
from engine.cli.failures import only, told
from engine.cli.output import note, progress_of_steps
from engine.errors import EngineError
from engine.model.limits import Limits
from engine.serving import Served, serving

OTHER_FILES: Final = 2_048
"""Besides one for each client: HTTP requests, the store, the application's own."""


def run_service(app: str, data: Path, bind: str, *, allow_shell: bool, limits: Limits) -> None:
    """Serve until a signal says that it is enough, then drain."""
    may_be_open = allow_open_files(wanted := limits.sessions_max + OTHER_FILES)
    if may_be_open < wanted:
        note(
            f"warning: {may_be_open:,} files may be open (ulimit -n -H), and each client is one: "
            f"sessions_max is {limits.sessions_max:,}"
        )
    trio.run(
        partial(_serve, app, data, bind, allow_shell, limits),
        restrict_keyboard_interrupt_to_checkpoints=True,
    )


def allow_open_files(wanted: int) -> int:
    """Let this process have so many files open, if it may; how many it may have open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < allowed:
        with suppress(OSError, ValueError):  # a system may have a bound that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def _serve(app: str, data: Path, bind: str, allow_shell: bool, limits: Limits) -> None:
    async with (
        serving(
            data, app=app, bind=bind, deferred=True, allow_shell=allow_shell, limits=limits
        ) as served,
        trio.open_nursery() as nursery,
    ):
        note(f"serving {app} at {served.url}, data in {data}")
        if served.is_new_key:
            note(f"admin key (kept in {data / 'admin.key'}): {served.admin_key}")
        served.deployer.push_when_asked = partial(_push_later, served)
        nursery.start_soon(_begin, served)
        nursery.start_soon(_push_on_hangup, served)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        end_in(served.engine.node.limits.drain_s + STUCK_S)
        note("draining")
        nursery.cancel_scope.cancel()


async def _begin(served: Served) -> None:
    """Push for the first time; what is there then is there for as long as the process."""
    await _push(served)
    gc.collect()
    gc.freeze()  # who looks for garbage need not look at it: that takes tens of milliseconds


async def _push(served: Served) -> list[str]:
    """Push; say how far it is, and what has changed."""
    with progress_of_steps() as told:
        changes = await served.push(told)
    application = served.deployer.application
    for warning in application.warnings:
        note(f"warning: {warning}")
    for change in changes:
        note(change)
    note(f"pushed {application.digest}; ready")
    return changes


async def _push_later(served: Served) -> list[str]:
    """As `_push`, while a version serves; says also why it serves on."""
    try:
        return await _push(served)
    except EngineError as error:
        for line in told(only(error)):
            note(line)
        note("not pushed; the version before serves on")
        raise


async def _push_on_hangup(served: Served) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            with suppress(EngineError):  # it has been told
                await _push_later(served)
