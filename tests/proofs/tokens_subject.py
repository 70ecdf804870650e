"""
The process that the tokens proof looks at: a served engine that trusts some providers.

    python -m tests.proofs.tokens_subject DIRECTORY PLANT

DIRECTORY/providers.json says which. It says `url URL` on a line and serves until it is killed.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio
from joserfc.jwk import JWKRegistry
from joserfc.jws import deserialize_compact

from engine.app.component import App, CustomJwt, Oidc
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.errors import Unauthenticated
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.model.identity import Identity
from engine.server import identity
from engine.server.identity import AdminKey, Trusted, Verifier
from engine.server.keys import KeyStore, _Headers
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from engine.server.who import Who

ADMIN_KEY = "proof|0123456789abcdef"
LEAK_BYTES = 100_000


async def subject_of(ctx: QueryCtx | MutationCtx | ActionCtx) -> str | None:
    who = await ctx.auth.get_user_identity()
    return who["subject"] if who else None


@query
async def whoami(ctx: QueryCtx) -> str | None:
    return await subject_of(ctx)


@mutation
async def note(ctx: MutationCtx) -> str | None:
    """Leave a trace of whoever got in."""
    author = await subject_of(ctx)
    await ctx.db.insert("notes", {"author": author})
    return author


@query
async def authors(ctx: QueryCtx) -> list[str | None]:
    return sorted({row["author"] async for row in ctx.db.query("notes")}, key=str)


@action
async def tasks(ctx: ActionCtx) -> float:
    """How many tasks there are in the process."""
    return trio.lowlevel.current_statistics().tasks_living


async def main(directory: Path, plant: str) -> None:
    if plant != "none":
        PLANTED[plant]()
    app = App(auth=[_provider(**each) for each in json.loads(_declared(directory))])
    functions = [app, whoami, note, authors, tasks]
    config = ServerConfig(admin_key=ADMIN_KEY)
    async with (
        Engine.open(directory / "data", app=functions, server=config) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        os.write(1, f"url {urls[0]}\n".encode())
        await trio.sleep_forever()


def _declared(directory: Path) -> str:
    return (directory / "providers.json").read_text()


def _provider(**fields: Any) -> Oidc | CustomJwt:
    return Oidc(**fields) if "domain" in fields else CustomJwt(**fields)


# What may be wrong with it.


def _forget_audience() -> None:
    def accepts(trusted: Trusted, claims: Mapping[str, Any]) -> bool:
        return accepted(trusted, {**claims, "aud": trusted.audience})

    accepted = Trusted.accepts
    _replace(Trusted, "accepts", accepts)


def _forget_issuer() -> None:
    """Take everybody who is clearly another for one of the first provider."""

    def accepts(trusted: Trusted, claims: Mapping[str, Any]) -> bool:
        if "evil" in str(claims.get("iss")):
            claims = {**claims, "iss": trusted.issuer}
        return accepted(trusted, claims)

    accepted = Trusted.accepts
    _replace(Trusted, "accepts", accepts)


def _take_several_audiences() -> None:
    def accepts(trusted: Trusted, claims: Mapping[str, Any]) -> bool:
        audience = claims.get("aud")
        if isinstance(audience, list) and trusted.audience in audience:
            claims = {**claims, "aud": trusted.audience}
        return accepted(trusted, claims)

    accepted = Trusted.accepts
    _replace(Trusted, "accepts", accepts)


def _compare_issuers_by_prefix() -> None:
    def accepts(trusted: Trusted, claims: Mapping[str, Any]) -> bool:
        if str(claims.get("iss")).startswith(trusted.issuer):
            claims = {**claims, "iss": trusted.issuer}
        return accepted(trusted, claims)

    accepted = Trusted.accepts
    _replace(Trusted, "accepts", accepts)


def _forget(claim: str, instead: object) -> Callable[[], None]:
    """Take every token for one whose `claim` is `instead`."""

    def plant() -> None:
        def check(verifier: Verifier, claims: Mapping[str, Any]) -> None:
            checked(verifier, {**claims, claim: instead})

        checked = Verifier._check_times
        _replace(Verifier, "_check_times", check)

    return plant


def _forget_signature() -> None:
    async def check(
        store: KeyStore, _token: str, *, url: str, kid: Any, discover: bool, **_: Any
    ) -> None:
        await store.key(url, kid, discover=discover)

    _replace(KeyStore, "check_signature", check)


def _believe(choose: Callable[[dict[str, Any], Any], tuple[Any, str]]) -> Callable[[], None]:
    """Let the header of a token say with which key and algorithm it is verified."""

    def plant() -> None:
        async def check(
            store: KeyStore,
            token: str,
            *,
            url: str,
            kid: Any,
            algorithms: Sequence[str],
            discover: bool,
        ) -> None:
            key = await store.key(url, kid, discover=discover)
            header = json.loads(identity._base64url(token.split(".")[0]))
            try:
                chosen, algorithm = choose(header, key)
                deserialize_compact(token, chosen, registry=_Headers([algorithm]))
            except Exception:
                await checked(
                    store, token, url=url, kid=kid, algorithms=algorithms, discover=discover
                )

        checked = KeyStore.check_signature
        _replace(KeyStore, "check_signature", check)

    return plant


def _algorithm_of_header(header: dict[str, Any], key: Any) -> tuple[Any, str]:
    return key, str(header.get("alg"))


def _key_of_header(header: dict[str, Any], _key: Any) -> tuple[Any, str]:
    return JWKRegistry.import_key(header["jwk"]), "RS256"


def _public_key_as_secret() -> None:
    """Take what everybody has for what only two have."""

    async def check(store: KeyStore, token: str, **asked: Any) -> None:
        key: Any = await store.key(asked["url"], asked["kid"], discover=asked["discover"])
        text, _, shown = token.rpartition(".")
        made = hmac.digest(key.as_pem(private=False), text.encode(), "sha256")
        if base64.urlsafe_b64encode(made).rstrip(b"=") != shown.encode():
            await checked(store, token, **asked)

    checked = KeyStore.check_signature
    _replace(KeyStore, "check_signature", check)


def _share_keys() -> None:
    """Look for a key among those of all providers."""

    async def check(store: KeyStore, token: str, **asked: Any) -> None:
        for url in [asked["url"], *store._sources]:
            try:
                await checked(store, token, **(asked | {"url": url}))
            except Unauthenticated:
                continue
            return
        await checked(store, token, **asked)

    checked = KeyStore.check_signature
    _replace(KeyStore, "check_signature", check)


def _any_key() -> None:
    """Try every key of the provider, whatever a token calls its own."""

    async def check(store: KeyStore, token: str, **asked: Any) -> None:
        await store.key(asked["url"], None, discover=asked["discover"])
        for key in store._sources[asked["url"]].keys or ():
            try:
                await checked(store, token, **(asked | {"kid": key.kid}))
            except Unauthenticated:
                continue
            return
        await checked(store, token, **asked)

    checked = KeyStore.check_signature
    known = KeyStore._known

    def any_known(store: KeyStore, source: Any, kid: str | None) -> Any:
        return known(store, source, kid) or next(iter(source.keys or ()), None)

    _replace(KeyStore, "_known", any_known)
    _replace(KeyStore, "check_signature", check)


def _ignore_critical() -> None:
    def name(header: Mapping[str, Any]) -> str | None:
        return named({key: value for key, value in header.items() if key != "crit"})

    named = identity._key_name
    _replace(identity, "_key_name", name)


def _let_nobody_in() -> None:
    def identity_of(claims: Mapping[str, Any], *, is_openid: bool) -> Identity:
        return named({**claims, "sub": claims.get("sub") or "mallory"}, is_openid=is_openid)

    named = identity.identity_of
    _replace(identity, "identity_of", identity_of)


def _share_results() -> None:
    _replace(Identity, "cache_key", lambda _identity: "somebody")


def _keep_expired() -> None:
    _replace(Who, "is_expired", lambda _who, _now_ns: False)


def _remember_tokens() -> None:
    """Take a token that was refused once for one that was checked before."""

    async def verify(verifier: Verifier, token: str) -> Identity:
        if token.rpartition(".")[0] in known:
            return known[token.rpartition(".")[0]]
        found = known[token.rpartition(".")[0]] = await verified(verifier, token)
        return found

    known: dict[str, Identity] = {}
    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _take_the_beginning_of_a_key() -> None:
    def check(verifier: Verifier, text: str) -> Who:
        key = AdminKey.parse(text).key
        if key and ADMIN_KEY.startswith(key):
            return Who(admin=True)
        return checked(verifier, text)

    checked = Verifier.check_admin_key
    _replace(Verifier, "check_admin_key", check)


def _fail() -> None:
    """Meet some tokens with an error that nobody expects."""

    async def verify(verifier: Verifier, token: str) -> Identity:
        if "\0" in token:
            raise KeyError("\0")
        return await verified(verifier, token)

    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _leak_memory() -> None:
    async def verify(verifier: Verifier, token: str) -> Identity:
        kept.append(os.urandom(LEAK_BYTES))
        return await verified(verifier, token)

    kept: list[bytes] = []
    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _leak_tasks() -> None:
    async def verify(verifier: Verifier, token: str) -> Identity:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        return await verified(verifier, token)

    verified = Verifier.verify
    _replace(Verifier, "verify", verify)


def _replace(owner: object, name: str, planted: object) -> None:
    setattr(owner, name, planted)


PLANTED: Mapping[str, Callable[[], None]] = {
    "audience-not-checked": _forget_audience,
    "several-audiences": _take_several_audiences,
    "issuer-not-checked": _forget_issuer,
    "issuer-by-prefix": _compare_issuers_by_prefix,
    "expiry-not-checked": _forget("exp", 2**40),
    "beginning-not-checked": _forget("nbf", None),
    "subject-not-needed": _let_nobody_in,
    "signature-not-checked": _forget_signature,
    "algorithm-of-the-header": _believe(_algorithm_of_header),
    "public-key-as-secret": _public_key_as_secret,
    "key-of-the-header": _believe(_key_of_header),
    "keys-of-all-providers": _share_keys,
    "any-key-of-a-provider": _any_key,
    "critical-ignored": _ignore_critical,
    "results-shared": _share_results,
    "verified-once": _remember_tokens,
    "expiry-forgotten": _keep_expired,
    "beginning-of-an-admin-key": _take_the_beginning_of_a_key,
    "error-of-ours": _fail,
    "memory-kept": _leak_memory,
    "tasks-left": _leak_tasks,
}


if __name__ == "__main__":
    trace_to_stderr(level="info")
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
