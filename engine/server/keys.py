"""
The public keys of identity providers, fetched once and kept, and signatures by them.

They are fetched again when a token names a key that is not among them, but not
more often than every `refetch_s_min`, whatever tokens say, and when they are
old.  A provider that does not answer leaves the keys that are known in use, and one that
is slow holds up the token that had it asked, not those that come meanwhile.  Keys
of a provider that is reached by https come by https all the way.

What this module imports comes with the extra `auth`, so it is imported itself
when there is a token to verify.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import httpx
import trio
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry, deserialize_compact

from engine.errors import Unauthenticated, Unreachable
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.limits import KEY_SET_BYTES_MAX, TOKEN_CHARS_MAX
from engine.model.text import brief

trace = tracer(__name__)

_SIGNING: Final = (("RSA", None), ("EC", "P-256"), ("OKP", "Ed25519"), ("OKP", "Ed448"))
"""Types and curves of keys that signatures are verified with."""


class _Headers(JWSRegistry):
    """
    Lets any header pass: providers put more in it than has to be.

    Args:
        algorithms: what a token may be signed with; the library's opinion of them is not asked.
    """

    max_header_length = max_payload_length = max_signature_length = TOKEN_CHARS_MAX

    def __init__(self, algorithms: Sequence[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)
        self._algorithms = algorithms

    def get_alg(self, name: str) -> Any:
        if name in self._algorithms:
            return self.algorithms[name]
        raise UnsupportedAlgorithmError(f"a token of this provider is not signed with {name!r}")


@dataclass(slots=True)
class _Source:
    """What is known of one URL."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    keys: tuple[Key, ...] | None = None
    fetched_s: float = 0.0
    tried_s: float | None = None


class KeyStore:
    """
    Args:
        runtime: its monotonic clock decides what is old.
        client: asks the providers; `None` makes one for each question.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        client: httpx.AsyncClient | None = None,
        age_s_max: float = 3600.0,
        refetch_s_min: float = 10.0,
        patience_s: float = 10.0,
    ) -> None:
        self._runtime = runtime
        self._client = client
        self._age_s_max = age_s_max
        self._refetch_s_min = refetch_s_min
        self._patience_s = patience_s
        self._sources: dict[str, _Source] = {}

    async def key(self, url: str, kid: str | None, *, discover: bool = False) -> Key:
        """
        The key called `kid` of the key set at `url`.

        Args:
            url: http(s), or `data:` with the key set itself.
            kid: `None` for the only key of a set of one.
            discover: `url` is that of an OpenID provider, which says where its keys are.

        Raises:
            Unauthenticated: there is no such key.
            Unreachable: the provider was not reached, and never had been.
        """
        source = self._sources.setdefault(url, _Source())
        key = self._known(source, kid)
        if key is not None and (not self._is_old(source) or source.lock.locked()):
            return key
        async with source.lock:
            if self._may_fetch(source, kid):
                await self._refresh(source, url, discover=discover)
        if source.keys is None:
            raise Unreachable(
                f"The keys of the identity provider at {url[:200]} could not be read; see the "
                "trace of the server, and try again later"
            )
        key = self._known(source, kid)
        if key is None:
            shown = "none is named" if kid is None else repr(brief(kid))
            raise Unauthenticated(f"The token was signed with an unknown key ({shown})")
        return key

    async def check_signature(
        self, token: str, *, url: str, kid: str | None, algorithms: Sequence[str], discover: bool
    ) -> None:
        """
        Check that a token is signed with the key called `kid`, found as `key` does.

        Raises:
            Unauthenticated: it is not, or there is no such key.
            Unreachable: the provider was not reached, and never had been.
        """
        key = await self.key(url, kid, discover=discover)
        try:
            deserialize_compact(token, key, registry=_Headers(algorithms))
        except (JoseError, ValueError, RecursionError) as error:
            why = brief(str(error))
            raise Unauthenticated(f"Could not verify the token: {why}") from None

    def _known(self, source: _Source, kid: str | None) -> Key | None:
        if source.keys is None:
            return None
        if kid is None:
            return source.keys[0] if len(source.keys) == 1 else None
        return next((key for key in source.keys if key.kid == kid), None)

    def _is_old(self, source: _Source) -> bool:
        return self._runtime.monotonic() - source.fetched_s > self._age_s_max

    def _may_fetch(self, source: _Source, kid: str | None) -> bool:
        """Whether, by the time it is this token's turn, it is worth asking (again)."""
        if self._known(source, kid) is not None and not self._is_old(source):
            return False
        tried_s = source.tried_s
        return tried_s is None or self._runtime.monotonic() - tried_s >= self._refetch_s_min

    async def _refresh(self, source: _Source, url: str, *, discover: bool) -> None:
        try:
            with trio.fail_after(self._patience_s):
                source.keys = await self._fetch_keys(url, discover=discover)
        except (
            *(OSError, ValueError, RecursionError, trio.TooSlowError),
            *(httpx.HTTPError, httpx.InvalidURL),
        ) as error:
            trace.warning("identity.keys_unavailable", url=url[:200], error=repr(error))
        else:
            source.fetched_s = self._runtime.monotonic()
        # Now, not before: whoever waited in line for this would else ask in turn, and wait as long.
        source.tried_s = self._runtime.monotonic()

    async def _fetch_keys(self, url: str, *, discover: bool) -> tuple[Key, ...]:
        if discover:
            url = _keys_url(await self._fetch_json(f"{url}/.well-known/openid-configuration"), url)
        document = await self._fetch_json(url)
        keys = document.get("keys")
        if isinstance(keys, list):
            return tuple(key for each in keys if (key := _key_of(each)) is not None)
        raise ValueError("a key set is an object with an array called keys")

    async def _fetch_json(self, url: str) -> dict[str, Any]:
        text = _data_of(url) if url.startswith("data:") else await self._get(url)
        document = json.loads(text)
        if isinstance(document, dict):
            return document
        raise ValueError("not a JSON object")

    async def _get(self, url: str) -> bytes:
        if self._client is not None:
            return await _body(self._client, url)
        async with httpx.AsyncClient(follow_redirects=True) as client:
            return await _body(client, url)


async def _body(client: httpx.AsyncClient, url: str) -> bytes:
    body = bytearray()
    # Not packed: a little could be unpacked to more than there is room for.
    async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        for each in (*response.history, response):
            _check_secure(str(each.url), url)
        response.raise_for_status()
        # Declared an iterator, it is a generator, which has to be closed when it is left early.
        generator = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
        async with aclosing(generator) as parts:
            async for part in parts:
                body += part
                if len(body) > KEY_SET_BYTES_MAX:
                    raise ValueError(f"the answer is over {KEY_SET_BYTES_MAX} bytes")
    return bytes(body)


def _check_secure(url: str, asked: str) -> None:
    """
    Check that what is asked by https comes by https.

    Raises:
        ValueError: anybody on the way could have answered.
    """
    if asked.startswith("https://") and not url.startswith("https://"):
        raise ValueError(f"{asked} leads to {url}, which is not https")


def _keys_url(document: dict[str, Any], issuer: str) -> str:
    """
    Where the discovery document of `issuer` says that its keys are.

    Raises:
        ValueError: it does not, or is of somebody else.
    """
    if str(document.get("issuer")).removesuffix("/") != issuer:
        raise ValueError(f"the discovery document is of {document.get('issuer')!r}, not {issuer}")
    url = str(document.get("jwks_uri"))
    if not url.startswith(("https://", "http://")):
        raise ValueError("the discovery document has no jwks_uri")
    _check_secure(url, issuer)
    return url


def _key_of(document: object) -> Key | None:
    """
    A key of a key set; `None` if no signature is verified with it.

    Providers keep others beside them, to encrypt with or of kinds to come: one is no reason to do
    without the rest.
    """
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    if (document.get("kty"), document.get("crv")) not in _SIGNING:
        return None
    try:
        return JWKRegistry.import_key(document)
    except Exception as error:
        trace.info("identity.key_passed_over", kid=str(document.get("kid")), error=repr(error))
        return None


def _data_of(url: str) -> bytes:
    """What a `data:` URL holds."""
    head, comma, data = url.partition(",")
    if not comma:
        raise ValueError("a data: URL has a comma")
    if head.endswith(";base64"):
        return base64.b64decode(unquote_to_bytes(data))
    return unquote_to_bytes(data)
