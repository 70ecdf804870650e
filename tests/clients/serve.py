"""
Serve one of the applications in `apps` until told to stop.

    python -m tests.clients.serve conformance_app --port 3999 --admin-key 'test|0123'
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import trio

from engine.host import Engine
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig

APPS = Path(__file__).parent / "apps"


async def serve(options: argparse.Namespace) -> None:
    """Say where, then serve until SIGTERM or SIGINT."""
    config = ServerConfig(admin_key=options.admin_key, redact=options.redact)
    async with Engine.open(options.data, app=APPS / options.app, server=config) as engine:
        listen = ListenConfig(bind=(f"127.0.0.1:{options.port}",))
        async with engine.listen(listen) as urls:
            sys.stdout.write(f"{urls[0]}\n")
            sys.stdout.flush()
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--data", default=":memory:")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--admin-key")
    parser.add_argument("--redact", action="store_true")
    trio.run(serve, parser.parse_args())


if __name__ == "__main__":
    main()
