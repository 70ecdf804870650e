"""Whom tokens and keys name, and which of them name nobody."""

from __future__ import annotations

import contextlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from joserfc.jwk import RSAKey

from engine.app.component import AuthProvider, Oidc
from engine.errors import (
    InvalidAuthHeader,
    NoAuthProvider,
    Unauthenticated,
    Unreachable,
    UsageError,
)
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import KEY_SET_BYTES_MAX, TOKEN_CHARS_MAX
from engine.server.identity import AdminKey, Verifier, acted_identity
from engine.server.keys import KeyStore
from tests.protocol.tokens import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    NEW_RSA,
    NOW_S,
    OTHER_RSA,
    RSA,
    custom,
    data_url,
    encoded,
    key_set,
    signed,
    token,
)

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")


def verifier(*providers: AuthProvider, keys: KeyStore | None = None) -> Verifier:
    return Verifier(
        lambda: providers or (custom(),), runtime=VirtualRuntime(), admin_key="n|s", keys=keys
    )


async def test_a_good_token_names_its_subject() -> None:
    identity = await verifier().verify(token(name="Alice", admin=True))

    assert (identity.subject, identity.issuer) == ("alice", ISSUER)
    assert identity.token_identifier == f"{ISSUER}|alice"
    assert identity.expires_s == NOW_S + 3600
    assert identity.claims == {"name": "Alice", "admin": True}


def tampered() -> str:
    head, _, signature = token().split(".")
    _, payload, _ = token(sub="mallory").split(".")
    return f"{head}.{payload}.{signature}"


def signed_with_the_public_key() -> str:
    """The public key, which anybody has, taken for the secret of a symmetric algorithm."""
    head = encoded(b'{"alg":"HS256","kid":"rsa"}')
    text = f"{head}.{token().split('.')[1]}"
    signature = hmac.digest(RSA.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{encoded(signature)}"


def of_another_algorithm() -> str:
    key = dict(RSA.as_dict(private=True))
    del key["alg"]
    return token(key=RSAKey.import_key(key), header={"alg": "RS512"})


def unsigned() -> str:
    head = encoded(b'{"alg":"none","kid":"rsa"}')
    return f"{head}.{token().split('.')[1]}."


HEAD = {"alg": "RS256", "kid": "rsa"}
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW_S + 3600}


def deep(depth: int) -> Any:
    """So many arrays, each in the other."""
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: token(key=OTHER_RSA), Unauthenticated),
        (tampered, Unauthenticated),
        (unsigned, Unauthenticated),
        (signed_with_the_public_key, Unauthenticated),
        (of_another_algorithm, Unauthenticated),
        (lambda: token(key=EC, header={"alg": "ES256"}), Unauthenticated),
        (lambda: token(header={"kid": "unknown"}), Unauthenticated),
        (lambda: token(header={"kid": None}), Unauthenticated),
        (lambda: token(lifetime_s=-1), Unauthenticated),
        (lambda: token(lifetime_s=0), Unauthenticated),
        (lambda: token(exp=None), Unauthenticated),
        (lambda: token(exp="tomorrow"), Unauthenticated),
        (lambda: token(exp=True), Unauthenticated),
        (lambda: token(nbf=NOW_S + 60), Unauthenticated),
        (lambda: token(nbf="now"), Unauthenticated),
        (lambda: token(iat="now"), Unauthenticated),
        (lambda: token(sub=None), Unauthenticated),
        (lambda: token(sub=""), Unauthenticated),
        (lambda: token(sub=5), Unauthenticated),
        (lambda: token(aud="somebody else"), NoAuthProvider),
        (lambda: token(aud=None), NoAuthProvider),
        (lambda: token(aud=["somebody else"]), NoAuthProvider),
        (lambda: token(iss="https://evil.test"), NoAuthProvider),
        (lambda: token(iss=None), NoAuthProvider),
        (lambda: token(iss=["https://issuer.test"]), NoAuthProvider),
        (
            lambda: signed({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}, CLAIMS),
            InvalidAuthHeader,
        ),
        (lambda: signed({"alg": "RS256", "kid": 5}, CLAIMS), InvalidAuthHeader),
        (lambda: signed({"kid": "rsa"}, CLAIMS), Unauthenticated),
        (lambda: signed(HEAD, {**CLAIMS, "name": "\ud800"}), InvalidAuthHeader),
        (lambda: signed(HEAD, {**CLAIMS, "sub": "\ud800"}), InvalidAuthHeader),
        (lambda: signed(HEAD, {**CLAIMS, "\ud800": 1}), InvalidAuthHeader),
        (lambda: signed(HEAD, {**CLAIMS, "x": float("nan")}), InvalidAuthHeader),
        (lambda: signed(HEAD, {**CLAIMS, "x": deep(65)}), InvalidAuthHeader),
        (lambda: "this.is.garbage", InvalidAuthHeader),
        (lambda: "garbage", InvalidAuthHeader),
        (lambda: "", InvalidAuthHeader),
        (lambda: "é.é.é", InvalidAuthHeader),
        (lambda: "W10.W10.x", InvalidAuthHeader),
        (lambda: "x" * 100_000, InvalidAuthHeader),
    ],
)
async def test_a_token_that_proves_nothing_is_refused(
    make: Callable[[], str], error: type[Unauthenticated]
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await verifier().verify(make())

    assert refused.type is error
    assert refused.value.code == error.__name__


@pytest.mark.parametrize(
    "more",
    [
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"cat": "of the provider's own"},
        {"x5t": "AA", "x5c": ["A" * 4000], "nonce": "n" * 4000},
        {
            "jwk": NEW_RSA.as_dict(private=False),
            "jku": "https://evil.test",
            "x5u": "https://e.test",
        },
    ],
    ids=range(5),
)
async def test_what_else_a_header_says_does_not_matter(more: dict[str, Any]) -> None:
    identity = await verifier().verify(signed({**HEAD, **more}, CLAIMS))

    assert identity.subject == "alice"


async def test_a_header_may_nest_to_the_edge_of_what_python_reads() -> None:
    """Two parsers look at it, the second one from a little further down the stack."""
    for depth in range(850, 1000):
        nested = "[" * depth + "]" * depth
        head = f'{{"alg":"RS256","kid":"rsa","x":{nested}}}'
        with contextlib.suppress(Unauthenticated):
            assert (await verifier().verify(signed(head.encode(), CLAIMS))).subject == "alice"


async def test_a_refusal_does_not_say_a_long_token_back() -> None:
    for part in ("alg", "kid"):
        with pytest.raises(Unauthenticated) as refused:
            await verifier().verify(signed({**HEAD, part: "k" * 20_000}, CLAIMS))
        assert len(str(refused.value)) < 500


async def test_a_token_of_more_characters_than_a_header_has_is_not_looked_at() -> None:
    with pytest.raises(InvalidAuthHeader, match=r"at most 65,536 are read \(TOKEN_CHARS_MAX\)"):
        await verifier().verify(token(padding="x" * TOKEN_CHARS_MAX))


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/", "issuer.test", "issuer.test/"])
async def test_issuers_are_compared_without_scheme_and_slash(issuer: str) -> None:
    identity = await verifier(custom(issuer=issuer)).verify(token())

    assert identity.subject == "alice"


async def test_a_small_difference_of_clocks_is_allowed() -> None:
    identity = await verifier().verify(token(nbf=NOW_S + 3))

    assert identity.subject == "alice"


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["another", AUDIENCE]])
async def test_a_custom_token_may_have_several_audiences(audience: Any) -> None:
    assert (await verifier().verify(token(aud=audience))).subject == "alice"


async def test_without_an_application_id_the_audience_does_not_matter() -> None:
    provider = custom(application_id=None)

    assert (await verifier(provider).verify(token(aud="anybody"))).subject == "alice"


async def test_the_provider_decides_the_algorithm() -> None:
    provider = custom(algorithm="ES256")

    identity = await verifier(provider).verify(token(key=EC, header={"alg": "ES256"}))

    assert identity.subject == "alice"
    with pytest.raises(Unauthenticated):
        await verifier(provider).verify(token())


async def test_the_first_provider_with_issuer_and_audience_is_asked() -> None:
    stranger = custom(application_id="another app", jwks=data_url(key_set(OTHER_RSA)))

    assert (await verifier(stranger, custom()).verify(token())).subject == "alice"
    with pytest.raises(Unauthenticated):
        await verifier(custom(jwks=data_url(key_set(OTHER_RSA))), custom()).verify(token())


async def test_the_only_key_needs_no_name() -> None:
    provider = custom(jwks=data_url(key_set(RSA)))

    identity = await verifier(provider).verify(token(header={"kid": None}))

    assert identity.subject == "alice"


async def test_a_key_set_may_be_plain_in_a_data_url() -> None:
    from urllib.parse import quote

    provider = custom(jwks=f"data:text/plain,{quote(json.dumps(key_set(RSA)))}")

    assert (await verifier(provider).verify(token())).subject == "alice"


async def test_custom_claims_are_flattened_and_numbers_canonical() -> None:
    claims: dict[str, Any] = {
        "org": {"id": 5.0, "deep": {"x": [1.0, True]}},
        "huge": 2**60,
        "half": 0.5,
    }

    identity = await verifier().verify(token(**claims))

    assert identity.claims == {
        "org.id": 5,
        "org.deep.x": [1, True],
        "huge": float(2**60),
        "half": 0.5,
    }
    assert [type(identity.claims[name]) for name in ("org.id", "huge")] == [int, float]


async def test_tokens_of_one_user_give_one_identity() -> None:
    both = [
        await verifier().verify(token(jti=number, nbf=NOW_S - number, fva=[number]))
        for number in (1, 2)
    ]

    assert both[0].cache_key() == both[1].cache_key()


async def test_what_is_done_to_an_identity_is_seen_by_nobody_else() -> None:
    identity = await verifier().verify(token(roles=["reader"], org=[{"id": 1}]))
    mine = identity.as_value()

    mine["roles"].append("admin")
    mine["org"][0]["id"] = 2
    mine["subject"] = "bob"

    assert {"roles": ["reader"], "org": [{"id": 1}]} == identity.claims
    assert ("alice", ["reader"]) == (identity.as_value()["subject"], identity.as_value()["roles"])


# OpenID providers.


class Provider:
    """An identity provider's web site."""

    def __init__(self, *keys: Any) -> None:
        self.keys = keys
        self.asked: list[str] = []
        self.is_down = False
        self.document: Any = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.is_down:
            raise httpx.ConnectError("down")
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self.document)
        if request.url.path == "/keys":
            return httpx.Response(200, json=key_set(*self.keys))
        return httpx.Response(404)

    def store(self, runtime: VirtualRuntime | None = None) -> KeyStore:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return KeyStore(runtime or VirtualRuntime(), client=client)


OIDC = Oidc(domain="issuer.test", application_id=AUDIENCE)


@pytest.mark.parametrize("key", [RSA, ED])
async def test_the_keys_of_an_openid_provider_are_discovered(key: Any) -> None:
    site = Provider(RSA, ED)
    algorithm = "RS256" if key is RSA else "EdDSA"

    identity = await verifier(OIDC, keys=site.store()).verify(
        token(key=key, header={"alg": algorithm})
    )

    assert identity.subject == "alice"
    assert site.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_standard_claims_have_their_names() -> None:
    claims: dict[str, Any] = {
        "given_name": "Alice",
        "picture": "https://x/y.png",
        "email_verified": True,
        "birthdate": "2000-01-01",
        "zoneinfo": "Europe/Paris",
        "locale": "fr",
        "address": {"formatted": "1 Road", "country": "FR"},
        "updated_at": NOW_S,
        "org": {"id": 1},
    }

    identity = await verifier(OIDC, keys=Provider(RSA).store()).verify(token(**claims))

    assert identity.claims == {
        "givenName": "Alice",
        "pictureUrl": "https://x/y.png",
        "emailVerified": True,
        "birthday": "2000-01-01",
        "timezone": "Europe/Paris",
        "language": "fr",
        "address": "1 Road",
        "updatedAt": "2026-01-01T00:00:00+00:00",
        "org": {"id": 1},
    }


async def test_an_openid_token_for_several_parties_is_refused() -> None:
    with pytest.raises(NoAuthProvider):
        await verifier(OIDC, keys=Provider(RSA).store()).verify(token(aud=[AUDIENCE, "other"]))


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": f"{ISSUER}/nothing"},
        {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "padding": "x" * KEY_SET_BYTES_MAX},
    ],
    ids=range(5),
)
async def test_a_provider_without_keys_is_unreachable(document: Any) -> None:
    site = Provider(RSA)
    site.document = document

    with pytest.raises(Unreachable):
        await verifier(OIDC, keys=site.store()).verify(token())


# Fetching keys.


REMOTE = custom(jwks=f"{ISSUER}/keys")


async def test_keys_are_fetched_once() -> None:
    site = Provider(RSA)
    asked = verifier(REMOTE, keys=site.store())

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(asked.verify, token())

    assert site.asked == ["/keys"]


async def test_an_unknown_key_is_looked_for_again_but_not_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Provider(RSA)
    asked = verifier(REMOTE, keys=site.store())
    await asked.verify(token())
    site.keys = (RSA, NEW_RSA)

    for _ in range(5):
        with pytest.raises(Unauthenticated, match="unknown key"):
            await asked.verify(token(key=NEW_RSA))
    await trio.sleep(11)
    identity = await asked.verify(token(key=NEW_RSA))

    assert identity.subject == "alice"
    assert site.asked == ["/keys"] * 2


async def test_old_keys_are_fetched_anew_and_withdrawn_ones_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Provider(RSA)
    asked = verifier(REMOTE, keys=site.store())
    await asked.verify(token(lifetime_s=9999))
    site.keys = (NEW_RSA,)

    await trio.sleep(3601)

    with pytest.raises(Unauthenticated, match="unknown key"):
        await asked.verify(token(lifetime_s=9999))


async def test_a_provider_that_is_down_leaves_its_keys_in_use(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Provider(RSA)
    asked = verifier(REMOTE, keys=site.store())
    await asked.verify(token(lifetime_s=9999))
    site.is_down = True

    await trio.sleep(3601)

    assert (await asked.verify(token(lifetime_s=9999))).subject == "alice"


async def test_a_provider_that_never_answered_is_not_asked_for_every_token(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Provider(RSA)
    site.is_down = True
    asked = verifier(REMOTE, keys=site.store())

    for _ in range(5):
        with pytest.raises(Unreachable):
            await asked.verify(token())
    site.is_down = False
    await trio.sleep(11)

    assert (await asked.verify(token())).subject == "alice"
    assert site.asked == ["/keys"] * 2


async def test_a_provider_that_hangs_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(hang))

    with pytest.raises(Unreachable):
        await verifier(REMOTE, keys=KeyStore(VirtualRuntime(), client=client)).verify(token())


async def test_a_key_set_without_end_is_given_up() -> None:
    def endless(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"[" + b"1," * (1 << 20))

    client = httpx.AsyncClient(transport=httpx.MockTransport(endless))

    with pytest.raises(Unreachable):
        await verifier(REMOTE, keys=KeyStore(VirtualRuntime(), client=client)).verify(token())


# The administrator.


@pytest.mark.parametrize(
    ("text", "key", "acting_as"),
    [
        ("name|secret", "name|secret", None),
        ("prod:name|secret", "name|secret", None),
        ("dev:team:name|secret", "name|secret", None),
        ("name|secret:e30=", "name|secret", "e30="),
        ("prod:name|secret:e30=", "name|secret", "e30="),
        ("secret", "secret", None),
    ],
)
def test_an_admin_key_is_taken_apart(text: str, key: str, acting_as: str | None) -> None:
    assert AdminKey.parse(text) == AdminKey(key=key, acting_as=acting_as)


@pytest.mark.parametrize("text", ["", "n|", "|s", "n|S", "n|s2", "m|s", "n|é"])
def test_only_the_whole_key_is_the_key(text: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier().check_admin_key(text)


@pytest.mark.parametrize("text", ["", "|", "n|", "prod:n|", "n|:e30="])
def test_a_key_that_everybody_has_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="secret"):
        Verifier(tuple, runtime=VirtualRuntime(), admin_key=text)


def test_a_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever two keys have in common, the only one who looks at both is `compare_digest`."""
    compared = []

    def compare(shown: bytes, expected: bytes) -> bool:
        compared.append((shown, expected))
        return shown == b"told"

    monkeypatch.setattr(hmac, "compare_digest", compare)

    assert verifier().check_admin_key("told").admin
    for text in ("n|s", "n|x", "x", ""):
        with pytest.raises(Unauthenticated):
            verifier().check_admin_key(text)
    assert [(text.encode(), b"n|s") for text in ("told", "n|s", "n|x", "x", "")] == compared


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"issuer": "i", "subject": "s"}, ("i", "s", "i|s", {})),
        ({"tokenIdentifier": "i|s"}, ("i", "s", "i|s", {})),
        (
            {"tokenIdentifier": "t", "issuer": "i", "subject": "s", "name": "N", "n": 1.0},
            ("i", "s", "t", {"name": "N", "n": 1}),
        ),
        ({"tokenIdentifier": 5, "issuer": "i", "subject": "s"}, ("i", "s", "i|s", {})),
        (
            {
                "tokenIdentifier": "i|s",
                "name": "N",
                "customClaims": {"team": {"role": "admin"}, "n": 1.0, "name": "M"},
            },
            ("i", "s", "i|s", {"name": "N", "team.role": "admin", "n": 1}),
        ),
        ({"tokenIdentifier": "i|s", "customClaims": 5}, ("i", "s", "i|s", {})),
        (
            {"issuer": "\ud800", "subject": "s", "\ud800": ["\ud800"]},
            ("\\ud800", "s", "\\ud800|s", {"\\ud800": ["\\ud800"]}),
        ),
    ],
)
def test_an_administrator_acts_as_any_user(attributes: Any, expected: Any) -> None:
    identity = acted_identity(attributes)

    found = (identity.issuer, identity.subject, identity.token_identifier, identity.claims)
    assert found == expected
    assert identity.expires_s is None


@pytest.mark.parametrize("attributes", [None, [], {}, {"issuer": "i"}, {"tokenIdentifier": 5}])
def test_what_names_no_user_cannot_be_acted_as(attributes: Any) -> None:
    with pytest.raises(InvalidAuthHeader):
        acted_identity(attributes)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_of_the_header_has_any_case(scheme: str) -> None:
    who = await verifier().from_header(f"{scheme} {token()}")

    assert who.identity is not None
    assert who.identity.subject == "alice"
    assert not who.admin
