"""Keys of identity providers over real sockets, by http and https, and of sites that misbehave."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.app.component import AuthProvider
from engine.errors import Unauthenticated, Unreachable
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import KEY_SET_BYTES_MAX
from engine.server.identity import Verifier
from engine.server.keys import KeyStore
from tests.node.certificates import certificate
from tests.node.identity_site import DISCOVERY, KEYS, Page, Site, json_page, redirect, site
from tests.protocol.tokens import NEW_RSA, OTHER_RSA, RSA, key_set

# The HTTP client below leaves the generators inside its own open when an answer is given up.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core):ResourceWarning")

SOON_S = 0.5


def verifier(*providers: AuthProvider, **patience: Any) -> Verifier:
    runtime = VirtualRuntime()
    return Verifier(lambda: providers, runtime=runtime, keys=KeyStore(runtime, **patience))


@pytest.fixture
async def provider() -> AsyncIterator[Site]:
    async with site(RSA) as served:
        yield served


@pytest.fixture
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A provider that is reached by https, with a certificate that this process trusts."""
    files = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    async with site(RSA, certificate=files, host="localhost") as served:
        yield served


async def test_keys_are_discovered_by_https_and_kept(secure: Site) -> None:
    asked = verifier(secure.oidc())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(asked.verify, secure.token())
    identity = await asked.verify(secure.token(sub="bob"))

    assert ("bob", secure.url) == (identity.subject, identity.issuer)
    assert [DISCOVERY, KEYS] == secure.asked


async def test_a_custom_provider_has_its_keys_at_a_url(provider: Site) -> None:
    identity = await verifier(provider.custom()).verify(provider.token())

    assert "alice" == identity.subject
    assert [KEYS] == provider.asked


async def test_each_provider_has_keys_of_its_own(provider: Site) -> None:
    async with site(OTHER_RSA) as other:
        both = verifier(provider.oidc(), other.custom())

        assert (await both.verify(other.token(key=OTHER_RSA))).issuer == other.url
        for stranger in (provider.token(key=OTHER_RSA), other.token(key=RSA)):
            with pytest.raises(Unauthenticated, match="signature"):
                await both.verify(stranger)


async def test_made_up_keys_do_not_have_a_provider_asked_each_time(provider: Site) -> None:
    asked = verifier(provider.custom())
    await asked.verify(provider.token())

    for number in range(200):
        with pytest.raises(Unauthenticated, match="unknown key"):
            await asked.verify(provider.token(header={"kid": f"made up {number}"}))
        await asked.verify(provider.token())

    assert [KEYS] == provider.asked


async def test_a_new_key_is_found_when_a_token_names_it(provider: Site) -> None:
    asked = verifier(provider.custom(), refetch_s_min=0.0)
    await asked.verify(provider.token())
    provider.keys = (RSA, NEW_RSA)

    for key in (NEW_RSA, RSA, NEW_RSA):
        assert (await asked.verify(provider.token(key=key))).subject == "alice"

    assert [KEYS, KEYS] == provider.asked


async def test_a_slow_provider_makes_nobody_wait_for_the_patience_of_others(provider: Site) -> None:
    asked = verifier(provider.oidc(), patience_s=0.3)
    provider.is_quick = trio.Event()
    refused = []

    async def ask() -> None:
        with pytest.raises(Unreachable):
            await asked.verify(provider.token())
        refused.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)

    assert 20 == len(refused)
    assert max(refused) - began < 0.3 + SOON_S
    assert [DISCOVERY] == provider.asked


async def test_while_old_keys_are_fetched_anew_they_are_good(provider: Site) -> None:
    asked = verifier(provider.custom(), age_s_max=0.0, refetch_s_min=0.0)
    await asked.verify(provider.token())
    provider.is_quick = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.verify, provider.token())
        while len(provider.asked) < 2:  # noqa: ASYNC110 - the site tells nobody
            await trio.sleep(0.01)
        with trio.fail_after(SOON_S):
            await asked.verify(provider.token())
        provider.is_quick.set()


async def test_a_provider_that_went_down_leaves_its_keys_in_use() -> None:
    async with site(RSA) as provider:
        asked = verifier(provider.oidc(), age_s_max=0.0, refetch_s_min=0.0)
        good = provider.token()
        await asked.verify(good)

    assert (await asked.verify(good)).subject == "alice"


async def test_a_provider_that_nobody_answers_for_is_unreachable() -> None:
    async with site(RSA) as provider:
        gone, good = verifier(provider.oidc()), provider.token()

    with pytest.raises(Unreachable):
        await gone.verify(good)


# What a site may answer instead.


async def test_a_page_without_end_is_hung_up_on(provider: Site) -> None:
    provider.pages[KEYS] = Page(body=itertools.repeat(b"[" * 65536))

    with pytest.raises(Unreachable):
        await verifier(provider.custom()).verify(provider.token())

    with trio.fail_after(5):
        await provider.hung_up.wait()


async def test_a_redirect_is_followed(provider: Site) -> None:
    provider.pages |= {KEYS: redirect("/elsewhere"), "/elsewhere": json_page(key_set(RSA))}

    assert (await verifier(provider.custom()).verify(provider.token())).subject == "alice"


async def test_keys_that_are_asked_by_https_come_by_https(secure: Site, provider: Site) -> None:
    for page, there in (
        (KEYS, redirect(f"{provider.url}{KEYS}")),
        (DISCOVERY, json_page({"issuer": secure.url, "jwks_uri": f"{provider.url}{KEYS}"})),
    ):
        secure.pages = {page: there}
        with pytest.raises(Unreachable):
            await verifier(secure.oidc()).verify(secure.token())


async def test_a_site_that_is_not_who_it_says_is_not_asked_for_keys(
    secure: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(Unreachable):
        await verifier(secure.oidc()).verify(secure.token())

    assert [] == secure.asked


OWN = "https://own.test"
"""Stands for where the site is."""
SITES = {
    "an error": (KEYS, Page(status=500, body=[b"{}"])),
    "nothing": (KEYS, Page()),
    "no JSON": (KEYS, Page(body=[b"<html>"])),
    "no object": (KEYS, json_page([key_set(RSA)])),
    "no array of keys": (KEYS, json_page({"keys": key_set(RSA)})),
    "no UTF-8": (KEYS, Page(body=[b'{"keys": "\xff"}'])),
    "nested without end": (KEYS, Page(body=[b"[" * 100_000])),
    "too much": (KEYS, Page(body=[b" " * KEY_SET_BYTES_MAX, b'{"keys":[]}'])),
    "too much once it is unpacked": (
        KEYS,
        Page(
            headers=("Content-Encoding: gzip",),
            body=[gzip.compress(b" " * 4 * KEY_SET_BYTES_MAX + b'{"keys":[]}')],
        ),
    ),
    "a circle": (KEYS, redirect(KEYS)),
    "another place that is none": (KEYS, redirect("http://[")),
    "a file": (KEYS, redirect("file:///etc/passwd")),
    "a document of somebody else": (
        DISCOVERY,
        json_page({"issuer": "https://evil.test", "jwks_uri": f"{OWN}{KEYS}"}),
    ),
    "a document of nobody": (DISCOVERY, json_page({"jwks_uri": f"{OWN}{KEYS}"})),
    "no place": (DISCOVERY, json_page({"issuer": OWN})),
    "a number for a place": (DISCOVERY, json_page({"issuer": OWN, "jwks_uri": 5})),
    "a place that is none": (DISCOVERY, json_page({"issuer": OWN, "jwks_uri": "http://\0"})),
}


@pytest.mark.parametrize(("path", "page"), SITES.values(), ids=SITES.keys())
async def test_a_site_that_has_no_keys_is_as_one_that_is_down(
    path: str, page: Page, provider: Site
) -> None:
    asked = verifier(provider.oidc(), refetch_s_min=0.0)
    body = b"".join(page.body).replace(OWN.encode(), provider.url.encode())
    provider.pages[path] = replace(page, body=[body])

    with pytest.raises(Unreachable):
        await asked.verify(provider.token())
    del provider.pages[path]

    assert (await asked.verify(provider.token())).subject == "alice"


PARTS = {name: RSA.as_dict(private=False)[name] for name in ("n", "e")}
STRANGE_KEYS: dict[str, Any] = {
    "no object": 5,
    "nothing": {},
    "a kind that is none": {"kty": ["RSA"]},
    "a kind to come": {"kty": "ML-DSA", "kid": "rsa"},
    "a curve that is not known": {"kty": "EC", "crv": "secp256k1", "kid": "rsa"},
    "no point of its curve": {"kty": "EC", "crv": "P-256", "kid": "rsa", "x": "AA", "y": "AA"},
    "no number": {"kty": "RSA", "kid": "rsa", "n": 5, "e": "AQAB"},
    "a number that is none": {"kty": "RSA", "kid": "rsa", "n": "!", "e": "AQAB"},
    "a secret": {"kty": "oct", "kid": "rsa", "k": "AAAA"},
    "one to encrypt with": {"kty": "RSA", "kid": "rsa", "use": "enc", **PARTS},
    "one to agree on keys": {"kty": "OKP", "crv": "X25519", "kid": "rsa", "x": "AA"},
}


@pytest.mark.parametrize("strange", STRANGE_KEYS.values(), ids=STRANGE_KEYS.keys())
async def test_a_key_that_signs_nothing_is_passed_over(strange: Any, provider: Site) -> None:
    good = key_set(RSA)["keys"]
    provider.pages[KEYS] = json_page({"keys": [strange, *good]})

    assert (await verifier(provider.custom()).verify(provider.token())).subject == "alice"


async def test_the_only_key_that_signs_needs_no_name(provider: Site) -> None:
    provider.pages[KEYS] = json_page({"keys": [STRANGE_KEYS["a secret"], *key_set(RSA)["keys"]]})
    nameless = provider.token(header={"kid": None})

    assert (await verifier(provider.custom()).verify(nameless)).subject == "alice"
    provider.pages[KEYS] = json_page(key_set(RSA, NEW_RSA))
    with pytest.raises(Unauthenticated, match="none is named"):
        await verifier(provider.custom()).verify(nameless)
