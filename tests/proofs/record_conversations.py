"""
Record what the official clients say, for the proof of frames to tamper with.

    python -m tests.proofs.record_conversations

It writes `recorded_conversations.json`: of each connection the messages of the client, with
`{token}` where it had one.  The clients in `tests/clients` have to be installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from engine.host import Engine
from engine.server.listener import ListenConfig
from engine.server.server import Server
from tests.proofs.frames import APP, RECORDINGS, good_token
from tests.proofs.hostile_frames import TOKEN

SCRIPT: Final = Path(__file__).parents[1] / "clients/javascript/conversations.mjs"
PYTHON: Final = """
import sys
from convex import ConvexClient
url, token = sys.argv[1:]
client = ConvexClient(url)
client.set_auth(token)
results = client.subscribe("notes:mine", {})
next(results)
client.query("notes:echo", {"value": [1, b"x", "y"]})
client.action("notes:ask", {"value": 0.5})
try:
    client.mutation("notes:write", {"n": 1})
except Exception:
    pass
results.unsubscribe()
client.clear_auth()
client.query("notes:mine", {})
"""
Receive = Callable[[], Awaitable[dict[str, Any]]]

said: list[list[str]] = []
"""By each client on each of its connections."""


def record() -> None:
    """From here on, keep what servers of this process are told over WebSockets."""
    serve = Server.__call__

    async def recorded(server: Server, scope: Any, receive: Receive, send: Any) -> None:
        conversation: list[str] = []

        async def listen() -> dict[str, Any]:
            event = await receive()
            if event["type"] == "websocket.receive":
                conversation.append(event["text"])
            return event

        if scope["type"] == "websocket":
            said.append(conversation)
        await serve(server, scope, listen, send)

    setattr(Server, "__call__", recorded)  # noqa: B010 - a method is not assigned to


async def main() -> None:
    record()
    token = good_token("mallory")
    async with (
        Engine.open(":memory:", app=APP) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        for command in (["node", str(SCRIPT)], [sys.executable, "-c", PYTHON]):
            await trio.run_process([*command, urls[0], token])
    texts = [[text.replace(token, TOKEN) for text in one] for one in said if one]
    RECORDINGS.write_text(json.dumps(texts, indent=1) + "\n")
    print(f"{len(texts)} connections, {sum(map(len, texts))} messages")


if __name__ == "__main__":
    trio.run(main)
