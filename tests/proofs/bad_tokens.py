"""
Tokens that prove nothing, each with the code of its refusal, and good ones to spoil.

Four providers are trusted.  Two of them have keys of one name, one knows keys that the other signs
with, and of one the audience does not matter: what is good for one of them is good for no other.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from engine.model.limits import TOKEN_CHARS_MAX, VALUE_NESTING_MAX
from tests.protocol.tokens import (
    AUDIENCE,
    EC,
    ED,
    NEW_RSA,
    OTHER_RSA,
    RSA,
    custom,
    data_url,
    encoded,
    key_set,
    signature,
    signed,
)

RS, ES, ANYBODY = "https://rs.test", "https://es.test", "https://anybody.test"
"""Issuers; the fourth is wherever its site is."""
CUSTOM: Final = (
    custom(issuer=RS, jwks=data_url(key_set(RSA, NEW_RSA, EC))),
    custom(issuer=ES, jwks=data_url(key_set(EC, RSA)), algorithm="ES256"),
    custom(issuer=ANYBODY, jwks=data_url(key_set(OTHER_RSA)), application_id=None),
)
SITE_KEYS: Final = (ED, NEW_RSA)

CURVE_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""How many points P-256 has."""
ABSENT: Final = object()
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

UNREADABLE, UNKNOWN, UNPROVEN = "InvalidAuthHeader", "NoAuthProvider", "Unauthenticated"
CODES: Final = (UNREADABLE, UNKNOWN, UNPROVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """`code` is that of the refusal; `None` is any of the three."""

    name: str
    text: str
    code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint:
    """Makes tokens as of `now_s`; `site` is the issuer whose keys are discovered."""

    site: str
    now_s: int

    def claims(self, issuer: str = RS, **others: Any) -> dict[str, Any]:
        """Those of a good token for mallory, except for what is said."""
        given = {"iss": issuer, "aud": AUDIENCE, "sub": "mallory"}
        given |= {"iat": self.now_s, "exp": self.now_s + 3600} | others
        return {name: claim for name, claim in given.items() if claim is not ABSENT}

    def good(self) -> dict[str, str]:
        """Good tokens by whom they name."""
        return {
            "alice": signed(head("RS256", "rsa"), self.claims(sub="alice")),
            "albert": signed(head("RS256", "new"), self.claims(sub="albert"), key=NEW_RSA),
            "bob": signed(head("ES256", "ec"), self.claims(ES, sub="bob"), key=EC),
            "carol": signed(
                head("RS256", "rsa"),
                self.claims(ANYBODY, sub="carol", aud="another"),
                key=OTHER_RSA,
            ),
            "dave": signed(head("RS256", "new"), self.claims(self.site, sub="dave"), key=NEW_RSA),
            "erin": signed(head("EdDSA", "ed"), self.claims(self.site, sub="erin"), key=ED),
        }


def head(algorithm: str, kid: str, **others: Any) -> dict[str, Any]:
    return {"alg": algorithm, "kid": kid, "typ": "JWT", **others}


HEAD: Final = head("RS256", "rsa")


def bad_tokens(mint: Mint) -> list[Bad]:
    """Every token that there is a reason to expect something of."""
    families: Mapping[Callable[[Mint], Iterator[tuple[str, str]]], str] = {
        _unreadable: UNREADABLE,
        _of_strange_headers: UNREADABLE,
        _of_strange_claims: UNREADABLE,
        _spelled_otherwise: UNPROVEN,
        _put_together: UNPROVEN,
        _of_wrong_keys: UNPROVEN,
        _of_wrong_algorithms: UNPROVEN,
        _of_wrong_key_names: UNPROVEN,
        _of_wrong_curves: UNPROVEN,
        _out_of_time: UNPROVEN,
        _of_nobody: UNPROVEN,
        _for_others: UNKNOWN,
        _of_others: UNKNOWN,
    }
    return [
        Bad(name=f"{family.__name__.strip('_')}: {name}", text=text, code=code)
        for family, code in families.items()
        for name, text in family(mint)
    ]


def spoiled(good: Sequence[str], dice: Random) -> Bad:
    """One of `good` of which something was changed, wherever that is."""
    text, other = dice.sample(good, 2)
    at, letter = dice.randrange(len(text)), dice.choice(ALPHABET)
    parts, others = text.split("."), other.split(".")
    number = dice.randrange(3)
    made = {
        "a letter changed": text[:at] + letter + text[at + 1 :],
        "a letter more": text[:at] + letter + text[at:],
        "a letter less": text[:at] + text[at + 1 :],
        "a part of another": ".".join([*parts[:number], others[number], *parts[number + 1 :]]),
        "a part twice": ".".join([*parts[:number], parts[number] * 2, *parts[number + 1 :]]),
        "cut": text[:at],
        "noise": "".join(dice.choices(ALPHABET + ".", k=len(text))),
    }
    name, found = dice.choice(list(made.items()))
    if found in good:
        return spoiled(good, dice)
    return Bad(name=f"spoiled: {name}, at {at}", text=found, code=None)


# Such as cannot be read.


def _unreadable(mint: Mint) -> Iterator[tuple[str, str]]:
    good = signed(HEAD, mint.claims())
    first, middle, last = good.split(".")
    for text in ("", ".", "..", "...", "null", "null.null.null", f"{first}.{middle}"):
        yield ascii(text[:9]), text
    yield "four parts", f"{good}.{last}"
    yield "five parts, as if encrypted", f"{first}..{middle}.{middle}.{last}"
    yield "another dot", f"{good}."
    yield "a word before it", f"Bearer{good}"
    yield "in quotes", f'"{good}"'
    for letter in ("\0", "!", "=", "\x7f"):
        yield f"{letter!a} in its head", f"{first[:8]}{letter}{first[8:]}.{middle}.{last}"
        yield f"{letter!a} in its claims", f"{first}.{middle[:8]}{letter}{middle[8:]}.{last}"
    yield "in small letters", good.lower()
    yield "as in a URL", good.replace(".", "%2E")
    yield "its dots alike", good.replace(".", "\u3002")
    yield "as JSON", json.dumps({"payload": middle, "protected": first, "signature": last})
    yield "too long", f"{first}.{middle}.{'A' * TOKEN_CHARS_MAX}"
    yield "far too long", "A" * 1_000_000
    yield "dots alone", "." * 60_000


def _of_strange_headers(mint: Mint) -> Iterator[tuple[str, str]]:
    for document in (b"", b"{", b"[]", b"5", b'"RS256"', b"null", b"{}{}", b"\xff", b"{'alg':1}"):
        yield ascii(document), signed(document, mint.claims())
    yield "without end", signed(b'{"alg":' * 5_000, mint.claims())
    for kid in (5, True, ["rsa"], {"kid": "rsa"}):
        yield f"kid {kid!r}", signed(HEAD | {"kid": kid}, mint.claims())
    extensions: tuple[Any, ...] = (["exp"], ["b64"], ["alg"], [], "exp", None, {})
    for crit in extensions:
        yield f"crit {crit!r}", signed(HEAD | {"crit": crit, "exp": 1}, mint.claims())
    yield "b64", signed(HEAD | {"crit": ["b64"], "b64": False}, mint.claims())


def _of_strange_claims(mint: Mint) -> Iterator[tuple[str, str]]:
    text = json.dumps(mint.claims())
    for document in (b"", b"[]", b"5", b'"mallory"', b"null", text[:-1].encode(), b"\xff\xfe"):
        yield ascii(document[:9]), signed(HEAD, document)
    yield "two documents", signed(HEAD, (text + text).encode())
    yield "UTF-16", signed(HEAD, text.encode("utf-16"))
    yield "a mark in front", signed(HEAD, b"\xef\xbb\xbf" + text.encode())
    yield "a comma more", signed(HEAD, f"{text[:-1]},}}".encode())
    for value in ("NaN", "Infinity", "1e999", r'"\ud800"', "[" * 5_000, "01", "'x'"):
        yield value[:9], signed(HEAD, f'{text[:-1]},"x":{value}}}'.encode())
    nested = "[" * (VALUE_NESTING_MAX + 1) + "]" * (VALUE_NESTING_MAX + 1)
    yield "nested", signed(HEAD, f'{text[:-1]},"x":{nested}}}'.encode())
    yield "a number too large", signed(HEAD, mint.claims(x=10**400))


# Such as are not signed.


def _spelled_otherwise(mint: Mint) -> Iterator[tuple[str, str]]:
    """A good token in another spelling; what would be read in spite of it is not asked."""
    good = signed(HEAD, mint.claims())
    first, middle, last = good.split(".")
    for letter in ("=", "==", "\0", "!", "+", "/", "\u00e9", "\u200b"):
        yield f"{letter!a} behind it", good + letter
        yield f"{letter!a} in its signature", f"{first}.{middle}.{last[:9]}{letter}{last[9:]}"
    yield "a letter that stands for the same", good[:-1] + _alike(good[-1])


def _alike(letter: str) -> str:
    """Another last letter of 2,048 bits: only its upper two bits are of them."""
    return ALPHABET[ALPHABET.index(letter) ^ 1]


def _put_together(mint: Mint) -> Iterator[tuple[str, str]]:
    first, middle, last = signed(HEAD, mint.claims()).split(".")
    *_, another = signed(HEAD, mint.claims(sub="alice")).split(".")
    stranger = signed(HEAD, mint.claims(), key=OTHER_RSA).split(".")[2]
    yield "not signed", f"{first}.{middle}."
    yield "signed for another", f"{first}.{middle}.{another}"
    yield "signed by another", f"{first}.{middle}.{stranger}"
    yield "half of a signature", f"{first}.{middle}.{last[: len(last) // 2]}"
    yield "twice a signature", f"{first}.{middle}.{last}{last}"
    yield "naught for a signature", f"{first}.{middle}.{encoded(bytes(256))}"
    yield "ones for a signature", f"{first}.{middle}.{encoded(bytes([255]) * 256)}"
    yield "its claims for a signature", f"{first}.{middle}.{middle}"
    yield "claims alone signed", f"{first}.{middle}.{encoded(signature(middle.encode()))}"
    yield (
        "all of it signed",
        f"{first}.{middle}.{encoded(signature(f'{first}.{middle}.'.encode()))}",
    )
    spaced = encoded(json.dumps(mint.claims(), indent=1).encode())
    yield "its claims spelled otherwise", f"{first}.{spaced}.{last}"


def _of_wrong_keys(mint: Mint) -> Iterator[tuple[str, str]]:
    own = OTHER_RSA.as_dict(private=False)
    site = mint.claims(mint.site)
    yield "another key of that name", signed(HEAD, mint.claims(), key=OTHER_RSA)
    yield "another provider's key", signed(HEAD, mint.claims(ANYBODY))
    yield "another key of the provider", signed(HEAD, mint.claims(), key=NEW_RSA)
    yield "another of its names", signed(head("RS256", "new"), mint.claims())
    yield "a key that comes along", signed(HEAD | {"jwk": own}, mint.claims(), key=OTHER_RSA)
    yield (
        "a key that comes along, unnamed",
        signed({"alg": "RS256", "jwk": own}, mint.claims(), key=OTHER_RSA),
    )
    for field in ("jku", "x5u"):
        for url in (data_url(key_set(OTHER_RSA)), "https://evil.test/keys", "file:///dev/null"):
            yield (
                f"keys at {field} {url[:9]}",
                signed(HEAD | {field: url}, mint.claims(), key=OTHER_RSA),
            )
    yield (
        "a certificate that comes along",
        signed(HEAD | {"x5c": ["MIIB"], "x5t": "AA"}, mint.claims(), key=OTHER_RSA),
    )
    yield (
        "of a site, by another key of that name",
        signed(head("RS256", "new"), site, key=OTHER_RSA),
    )
    yield "of a site, by another provider's key", signed(HEAD, site)
    yield "of a site, the wrong one of its keys", signed(head("EdDSA", "new"), site, key=ED)


def _of_wrong_algorithms(mint: Mint) -> Iterator[tuple[str, str]]:
    claims = mint.claims()
    for name in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "rs256",
        "RS256 ",
        "RS256\0",
        "RS384",
        "PS256",
    ):
        first, middle, last = signed(head(name, "rsa"), claims).split(".")
        yield f"{name!a}", f"{first}.{middle}.{last}"
        yield f"{name!a}, not signed", f"{first}.{middle}."
    for value in (None, 256, True, ["RS256"], {"RS256": 1}):
        yield f"{value!r}", signed(HEAD | {"alg": value}, claims)
    yield "none said", signed({"kid": "rsa"}, claims)
    yield "RS512", _signed_with("RS512", claims, hashes.SHA512())
    yield "an elliptic curve's", signed(head("ES256", "ec"), claims, key=EC)
    yield (
        "an elliptic curve's, by name of another key",
        signed(head("ES256", "rsa"), claims, key=EC),
    )
    yield "Edwards'", signed(head("EdDSA", "ed"), claims, key=ED)
    yield "RSA where curves are used", signed(HEAD, mint.claims(ES))
    yield (
        "a curve where a site has another",
        signed(head("ES256", "ec"), mint.claims(mint.site), key=EC),
    )
    secrets = {
        "the public key": RSA.as_pem(private=False),
        "the public key without its end": RSA.as_pem(private=False).rstrip(),
        "the public key in binary": RSA.as_der(private=False),
        "the public key as JSON": json.dumps(RSA.as_dict(private=False)).encode(),
        "the key's name": b"rsa",
        "nothing": b"",
    }
    for name in ("HS256", "HS384", "HS512"):
        for what, secret in secrets.items():
            yield f"{name} with {what}", _with_secret(name, claims, secret)


def _signed_with(name: str, claims: object, digest: hashes.HashAlgorithm) -> str:
    private: Any = RSA.private_key
    text = f"{encoded(head(name, 'rsa'))}.{encoded(claims)}"
    return f"{text}.{encoded(private.sign(text.encode(), padding.PKCS1v15(), digest))}"


def _with_secret(name: str, claims: object, secret: bytes) -> str:
    text = f"{encoded(head(name, 'rsa'))}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), f'sha{name[2:]}'))}"


def _of_wrong_key_names(mint: Mint) -> Iterator[tuple[str, str]]:
    names = ("", " rsa", "RSA", "rsa\0", "rsa\0new", "../../../dev/null", "' OR 1=1 --", "0", "*")
    for name in (*names, "https://evil.test/keys", "__class__", "rsa" * 10_000):
        yield f"{name[:20]!a}", signed(head("RS256", name), mint.claims())
    yield "none, where there are several", signed({"alg": "RS256"}, mint.claims())
    yield "null, where there are several", signed({"alg": "RS256", "kid": None}, mint.claims())


def _of_wrong_curves(mint: Mint) -> Iterator[tuple[str, str]]:
    claims = mint.claims(ES)
    text = f"{encoded(head('ES256', 'ec'))}.{encoded(claims)}"
    good = signature(text.encode(), EC)
    r, s = good[:32], good[32:]
    order = CURVE_ORDER.to_bytes(32, "big")
    made = {
        "naught": bytes(64),
        "r is naught": bytes(32) + s,
        "s is naught": r + bytes(32),
        "r is the order": order + s,
        "s is the order": r + order,
        "both are the order": order + order,
        "both are one": (bytes(31) + b"\1") * 2,
        "all ones": bytes([255]) * 64,
        "turned round": s + r,
        "a byte less": good[:-1],
        "a byte more": good + b"\0",
        "a byte in front": b"\0" + good,
        "half": r,
        "twice": good + good,
        "nothing": b"",
        "one byte": b"\0",
        "as certificates have it": b"\x30\x44\x02\x20" + r + b"\x02\x20" + s,
        "that of RSA": signature(text.encode()),
        "of another text": signature(b"", EC),
    }
    for name, data in made.items():
        yield name, f"{text}.{encoded(data)}"
    text = f"{encoded(head('EdDSA', 'ed'))}.{encoded(mint.claims(mint.site))}"
    good = signature(text.encode(), ED)
    for name, data in {
        "Edwards', naught": bytes(64),
        "Edwards', all ones": bytes([255]) * 64,
        "Edwards', a byte less": good[:-1],
        "Edwards', a byte more": good + b"\0",
        "Edwards', turned round": good[32:] + good[:32],
        "Edwards', another's": signature(text.encode(), EC),
    }.items():
        yield name, f"{text}.{encoded(data)}"


# Such as say what does not hold.


def _out_of_time(mint: Mint) -> Iterator[tuple[str, str]]:
    now_s = mint.now_s
    past: tuple[Any, ...] = (now_s - 1, now_s - 3600, now_s - 0.5, 0, -1, -(2**52), 1.5)
    no_time: tuple[Any, ...] = ("", "tomorrow", f"{now_s + 3600}", True, None, [], {}, [now_s + 99])
    for value in (*past, *no_time, 2**53, 2**64, 1e300):
        yield f"exp {value!r}", signed(HEAD, mint.claims(exp=value))
    yield "no exp", signed(HEAD, mint.claims(exp=ABSENT))
    for value in (now_s + 60, now_s + 1e6, "now", True, [], {}, 2**53, -(2**53)):
        yield f"nbf {value!r}", signed(HEAD, mint.claims(nbf=value))
    for value in ("now", True, [now_s], {}, 2**60):
        yield f"iat {value!r}", signed(HEAD, mint.claims(iat=value))
    yield "first good, then past", _twice(mint, "exp", now_s + 3600, now_s - 3600)
    yield "a curve's, past", signed(head("ES256", "ec"), mint.claims(ES, exp=now_s - 9), key=EC)
    yield (
        "a site's, past",
        signed(head("EdDSA", "ed"), mint.claims(mint.site, exp=now_s - 9), key=ED),
    )


def _of_nobody(mint: Mint) -> Iterator[tuple[str, str]]:
    for value in ("", None, 5, True, [], {}, ["mallory"], ABSENT):
        shown = "none" if value is ABSENT else repr(value)
        yield f"sub {shown}", signed(HEAD, mint.claims(sub=value))
    yield "first somebody, then nobody", _twice(mint, "sub", "mallory", "")


def _for_others(mint: Mint) -> Iterator[tuple[str, str]]:
    strange: tuple[Any, ...] = (5, True, None, {}, {AUDIENCE: 1}, [[AUDIENCE]], [{}], [None])
    others = ("another", "", "App", "app ", "app\0", "ap", "app,another", ["another"])
    for value in (*others, *strange, []):
        yield f"aud {value!r}", signed(HEAD, mint.claims(aud=value))
    yield "no aud", signed(HEAD, mint.claims(aud=ABSENT))
    yield "first us, then others", _twice(mint, "aud", AUDIENCE, "another")
    for value in ([AUDIENCE, "another"], [AUDIENCE, AUDIENCE], ["another"], "another"):
        yield (
            f"a site's, aud {value!r}",
            signed(head("RS256", "new"), mint.claims(mint.site, aud=value), key=NEW_RSA),
        )


def _of_others(mint: Mint) -> Iterator[tuple[str, str]]:
    issuers: tuple[Any, ...] = (
        *("https://evil.test", "", "rs", "http://rs.test", "https://RS.test", "https://rs.test//"),
        *("https://rs.test.evil.test", "https://rs.test/evil", "https://rs.test:443", "//rs.test"),
        *(" https://rs.test", "https://rs.test\0", "https://rs.test#", "https://a@rs.test"),
        *(5, True, None, [RS], {"iss": RS}, []),
    )
    for issuer in issuers:
        yield f"iss {issuer!r}", signed(HEAD, mint.claims(issuer))
    yield "no iss", signed(HEAD, mint.claims(iss=ABSENT))
    yield "first ours, then another", _twice(mint, "iss", RS, "https://evil.test")


def _twice(mint: Mint, name: str, first: object, then: object) -> str:
    """A token with a claim that is there twice, of which the last counts."""
    claims = mint.claims()
    del claims[name]
    others = json.dumps(claims)[1:-1]
    both = f'{{"{name}":{json.dumps(first)},{others},"{name}":{json.dumps(then)}}}'
    return signed(HEAD, both.encode())
