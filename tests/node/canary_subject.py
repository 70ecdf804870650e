"""
A server through which a canary goes: all that it and its libraries say is on its stderr.

    python -m tests.node.canary_subject DIRECTORY dev|production PLANT

DIRECTORY has `canary_app.py` and, in `data`, the admin key. It says where it listens on stdout and
serves until it is told to stop.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from engine.kernel.trace import trace_to_stderr, tracer
from engine.model.identity import Identity
from engine.server import messages, session
from engine.server.http import HttpApi
from engine.server.identity import Verifier
from engine.server.keys import KeyStore
from engine.serving import serving

trace = tracer(__name__)


async def main(directory: Path, mode: str, plant: str) -> None:
    logging.basicConfig(level=logging.DEBUG)
    trace_to_stderr(level="debug")
    _break_for_some()
    PLANTED[plant]()
    app = directory / "canary_app.py"
    async with serving(directory / "data", app=app, dev=mode == "dev") as served:
        os.write(1, f"url {served.url}\n".encode())
        await trio.to_thread.run_sync(sys.stdin.read)


def _break_for_some() -> None:
    """Meet a token that names a certain key with an error of ours, its text all around it."""

    async def check(store: KeyStore, token: str, *, kid: str | None, **asked: Any) -> None:
        if kid == "broken":
            raise RuntimeError("the engine broke")
        await checked(store, token, kid=kid, **asked)

    checked = KeyStore.check_signature
    _replace(KeyStore, "check_signature", check)


# What would let a canary out.


def _nothing() -> None:
    pass


def _trace_token() -> None:
    async def verify(verifier: Verifier, token: str) -> Identity:
        trace.debug("identity.verified", token=token)
        return await verified(verifier, token)

    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _trace_message() -> None:
    def decode(text: str) -> Any:
        trace.debug("session.received", message=text[:150])
        return messages.decode(text)

    _replace(session, "decode", decode)


def _trace_headers() -> None:
    async def handle(api: HttpApi, request: Any) -> Any:
        logging.getLogger("http").debug("request with %s", dict(request.headers))
        return await handled(api, request)

    handled = HttpApi.handle
    _replace(HttpApi, "handle", handle)


def _keep_in_records() -> None:
    async def verify(verifier: Verifier, token: str) -> Identity:
        found = await verified(verifier, token)
        return Identity(
            issuer=found.issuer,
            subject=found.subject,
            token_identifier=found.token_identifier,
            claims={**found.claims, "signature": token.rpartition(".")[2]},
            expires_s=found.expires_s,
        )

    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _say_key_back() -> None:
    def check(verifier: Verifier, text: str) -> Any:
        try:
            return checked(verifier, text)
        except Exception as error:
            raise type(error)(f"{error}: {text}") from None

    checked = Verifier.check_admin_key
    _replace(Verifier, "check_admin_key", check)


def _replace(owner: object, name: str, planted: object) -> None:
    setattr(owner, name, planted)


PLANTED: Mapping[str, Callable[[], None]] = {
    "none": _nothing,
    "traced-token": _trace_token,
    "traced-message": _trace_message,
    "logged-headers": _trace_headers,
    "token-in-the-data": _keep_in_records,
    "key-in-a-refusal": _say_key_back,
}


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
