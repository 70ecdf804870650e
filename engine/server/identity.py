"""
Who is asking: tokens of identity providers, and the administrator's key.

`Verifier.verify` turns a JSON Web Token into an `Identity`, or says why it is
none.  The application's provider decides which algorithm a token is signed
with, never the token itself.

    token ──▶ its issuer and audience ──▶ the first provider that has them
          ──▶ the key that it names   ──▶ signature, then expiry and subject
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from engine.app.component import AuthProvider, CustomJwt, Oidc
from engine.errors import InvalidAuthHeader, NoAuthProvider, Unauthenticated, UsageError
from engine.kernel.runtime import Runtime
from engine.model.identity import Identity
from engine.model.limits import TOKEN_CHARS_MAX, VALUE_NESTING_MAX
from engine.model.text import speakable
from engine.model.values import canonical_float
from engine.server.requests import Request
from engine.server.who import NOBODY, Who

if TYPE_CHECKING:
    from engine.server.keys import KeyStore

CLOCK_SKEW_S: Final = 5.0
"""By how much a provider's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """
    One identity provider that the application trusts.

    `keys_url` is where its key set is, or with `discover` the provider itself.
    `audience` is the application's id there; `None` accepts a token for anybody.
    """

    issuer: str
    audience: str | None
    algorithms: tuple[str, ...]
    keys_url: str
    discover: bool

    @classmethod
    def of(cls, provider: AuthProvider) -> Trusted:
        """What a provider means that an application declared."""
        match provider:
            case Oidc():
                domain = _comparable(provider.domain)
                return cls(
                    issuer=domain,
                    audience=provider.application_id,
                    algorithms=("RS256", "EdDSA"),
                    keys_url=domain,
                    discover=True,
                )
            case CustomJwt():
                return cls(
                    issuer=provider.issuer,
                    audience=provider.application_id,
                    algorithms=(provider.algorithm,),
                    keys_url=provider.jwks,
                    discover=False,
                )
            case _:
                assert_never(provider)

    def accepts(self, claims: Mapping[str, Any]) -> bool:
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or _comparable(issuer) != _comparable(self.issuer):
            return False
        if self.audience is None:
            return True
        audience = claims.get("aud")
        if isinstance(audience, list):
            # An OpenID token for several parties could be replayed by one of them.
            return self.audience in audience and not (self.discover and len(audience) > 1)
        return audience == self.audience


class Verifier:
    """
    Args:
        providers: the application's, asked anew for each token: a push may change them.
        admin_key: the administrator's; `None` accepts none.

    Raises:
        UsageError: the admin key is one that everybody has.
    """

    def __init__(
        self,
        providers: Callable[[], Sequence[AuthProvider]],
        *,
        runtime: Runtime,
        admin_key: str | None = None,
        keys: KeyStore | None = None,
    ) -> None:
        self._providers = providers
        self._runtime = runtime
        self._admin_key = None if admin_key is None else _with_secret(admin_key)
        self._keys = keys

    async def verify(self, token: str) -> Identity:
        """
        The user that a JSON Web Token names.

        Raises:
            InvalidAuthHeader: it is no token.
            NoAuthProvider: no provider of the application has its issuer and audience.
            Unauthenticated: it is not signed as it should be, or has expired.
            Unreachable: the provider's keys could not be read.
        """
        header, claims = _unverified(token)
        known = map(Trusted.of, self._providers())
        trusted = next((each for each in known if each.accepts(claims)), None)
        if trusted is None:
            raise NoAuthProvider(
                "No auth provider found matching the given token: check its issuer (iss) and "
                "audience (aud) against the providers of the application"
            )
        await self._key_store().check_signature(
            token,
            url=trusted.keys_url,
            kid=_key_name(header),
            algorithms=trusted.algorithms,
            discover=trusted.discover,
        )
        self._check_times(claims)
        return identity_of(claims, is_openid=trusted.discover)

    def check_admin_key(self, text: str) -> Who:
        """
        The administrator, or as whom the administrator acts.

        Args:
            text: ``NAME|SECRET``, and after a colon maybe an identity as base64 of JSON.

        Raises:
            Unauthenticated: it is not the key.
            InvalidAuthHeader: the identity cannot be read.
        """
        presented = AdminKey.parse(text)
        expected = self._admin_key
        shown = presented.key.encode("utf-8", "surrogatepass")
        if expected is None or not hmac.compare_digest(shown, expected.encode()):
            raise Unauthenticated("The admin key is not the one of this deployment")
        return Who(admin=True, identity=presented.identity())

    async def from_header(self, header: str | None) -> Who:
        """
        Whom the `Authorization` header of a request names; nobody without one.

        Raises:
            InvalidAuthHeader: it is neither ``Bearer TOKEN`` nor ``Convex KEY``.
            Unauthenticated: as `verify` and `check_admin_key`.
        """
        if header is None:
            return NOBODY
        scheme, credentials = _credentials(header)
        match scheme:
            case "bearer":
                return Who(identity=await self.verify(credentials))
            case "convex":
                return self.check_admin_key(credentials)
        raise InvalidAuthHeader("Authorization is `Bearer TOKEN` or `Convex ADMIN_KEY`")

    async def from_request(self, request: Request) -> Who:
        """
        Whom a request names, by its header or without one by ``?adminKey=``.

        Raises:
            Unauthenticated: whom it names, it does not prove to be.
        """
        header = request.headers.get("authorization")
        admin_key = request.query.get("adminKey")
        if header is None and admin_key is not None:
            return self.check_admin_key(admin_key)
        return await self.from_header(header)

    def has_admin_key(self, request: Request) -> bool:
        """Whether a request has the admin key, told without asking anybody else for keys."""
        header = request.headers.get("authorization")
        if header is None:
            text = request.query.get("adminKey", "")
        else:
            scheme, text = _credentials(header)
            text = text if scheme == "convex" else ""
        try:
            return self.check_admin_key(text).admin
        except Unauthenticated:
            return False

    def check_expiry(self, who: Who) -> None:
        """
        Raises:
            Unauthenticated: the token that `who` was made of has run out since.
        """
        expires_s = who.identity.expires_s if who.identity else None
        if expires_s is not None:
            _check_expiry(self._runtime.now_ns() / 1e9, expires_s)

    def _key_store(self) -> KeyStore:
        if self._keys is None:
            # Not before there is a token and a provider for it: it comes with an extra.
            from engine.server.keys import KeyStore

            self._keys = KeyStore(self._runtime)
        return self._keys

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now_s = self._runtime.now_ns() / 1e9
        expires_s = _time_of(claims, "exp")
        if expires_s is None:
            raise Unauthenticated("The token has no expiry (exp)")
        _check_expiry(now_s, expires_s)
        _time_of(claims, "iat")
        begins_s = _time_of(claims, "nbf")
        if begins_s is not None and now_s < begins_s - CLOCK_SKEW_S:
            raise Unauthenticated(f"The token is not valid for another {begins_s - now_s:.0f} s")


def _check_expiry(now_s: float, expires_s: float) -> None:
    if now_s >= expires_s:
        raise Unauthenticated(f"The token expired {now_s - expires_s:.0f} s ago")


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, credentials = header.strip().partition(" ")
    return scheme.lower(), credentials.strip()


def _comparable(issuer: str) -> str:
    """An issuer in the spelling in which issuers are compared."""
    if "://" not in issuer:
        issuer = f"https://{issuer}"
    return issuer.removesuffix("/")


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token that may be anybody's."""
    if len(token) > TOKEN_CHARS_MAX:
        raise InvalidAuthHeader(
            f"A token of {len(token):,} characters is too long; "
            f"at most {TOKEN_CHARS_MAX:,} are read (TOKEN_CHARS_MAX)"
        )
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidAuthHeader("Could not parse the token: a JWT has three parts")
    try:
        # As strict as can be: half a surrogate pair, say, is in no text that anybody can store.
        header, claims = (msgspec.json.decode(_base64url(part)) for part in parts[:2])
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise InvalidAuthHeader("Could not parse the token: no JSON in it") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidAuthHeader("Could not parse the token: not JSON objects")
    return header, claims


def _key_name(header: Mapping[str, Any]) -> str | None:
    """
    The key that a token says it is signed with; of what else its header says, nothing counts.

    Raises:
        InvalidAuthHeader: it has no name, or an extension of the standard has to be understood.
    """
    if "crit" in header:
        raise InvalidAuthHeader("The token is critical (crit) of extensions; none are understood")
    kid = header.get("kid")
    if kid is None or isinstance(kid, str):
        return kid
    raise InvalidAuthHeader("The kid of a token is a string")


def _base64url(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


_TIME_S_MAX: Final = 2**53
_DATE_S_MAX: Final = 253_402_300_800
"""When the year 10,000 begins, which dates do not reach."""


def _time_of(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < _TIME_S_MAX:
        raise Unauthenticated(f"The {name} of the token is no time")
    return float(value)


# Claims.


_CLAIM_NAMES: Final = {
    "name": "name",
    "given_name": "givenName",
    "family_name": "familyName",
    "nickname": "nickname",
    "preferred_username": "preferredUsername",
    "profile": "profileUrl",
    "picture": "pictureUrl",
    "website": "websiteUrl",
    "email": "email",
    "email_verified": "emailVerified",
    "gender": "gender",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
    "phone_number": "phoneNumber",
    "phone_number_verified": "phoneNumberVerified",
    "address": "address",
    "updated_at": "updatedAt",
}

_DROPPED: Final = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "fva"})
"""In other attributes of the identity, or different in every token of the same user."""


def identity_of(claims: Mapping[str, Any], *, is_openid: bool) -> Identity:
    """
    The identity that verified claims describe.

    Raises:
        Unauthenticated: they name no subject.
    """
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not subject:
        raise Unauthenticated("The token has no subject (sub)")
    return Identity(
        issuer=issuer,
        subject=subject,
        token_identifier=f"{issuer}|{subject}",
        claims=_openid_claims(claims) if is_openid else _custom_claims(claims),
        expires_s=_time_of(claims, "exp"),
    )


def _openid_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    named = {}
    for name, claim in claims.items():
        if name in _DROPPED:
            continue
        match name, claim:
            case "address", {"formatted": str(formatted)}:
                named["address"] = formatted
            case "updated_at", (int() | float()) if 0 <= claim < _DATE_S_MAX:
                named["updatedAt"] = datetime.fromtimestamp(claim, UTC).isoformat()
            case _:
                named[_CLAIM_NAMES.get(name, name)] = _canonical(claim)
    return named


def _custom_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, claim in claims.items():
        if name not in _DROPPED:
            _flatten(name, claim, flat, VALUE_NESTING_MAX)
    return flat


def _flatten(name: str, claim: object, flat: dict[str, Any], room: int) -> None:
    if isinstance(claim, dict) and room > 0:
        for inner, value in claim.items():
            _flatten(f"{name}.{inner}", value, flat, room - 1)
    else:
        flat[name] = _canonical(claim, room)


def _canonical(claim: object, room: int = VALUE_NESTING_MAX) -> Any:
    """
    A JSON value with its numbers and texts as the engine holds them.

    Raises:
        InvalidAuthHeader: no value nests as deep, or has a number as large.
    """
    if isinstance(claim, dict | list) and room <= 0:
        raise InvalidAuthHeader(f"A claim nests more than {VALUE_NESTING_MAX} deep")
    if isinstance(claim, dict):
        return {speakable(name): _canonical(value, room - 1) for name, value in claim.items()}
    if isinstance(claim, list):
        return [_canonical(value, room - 1) for value in claim]
    if isinstance(claim, int | float) and not isinstance(claim, bool):
        try:
            return canonical_float(float(claim))
        except OverflowError:
            raise InvalidAuthHeader("A claim is a number beyond float64") from None
    return speakable(claim) if isinstance(claim, str) else claim


# The administrator.


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """An admin key as it was presented, apart from what is decoration."""

    key: str = field(repr=False)
    acting_as: str | None

    @classmethod
    def parse(cls, text: str) -> AdminKey:
        """Take apart ``PREFIX:NAME|SECRET:IDENTITY``, of which prefix and identity are optional."""
        deployment, bar, secret = text.partition("|")
        if not bar:
            deployment, secret = "", deployment
        secret, _, acting_as = secret.partition(":")
        name = deployment.rpartition(":")[2]
        return cls(key=f"{name}{bar}{secret}", acting_as=acting_as or None)

    def identity(self) -> Identity | None:
        """As whom the administrator acts."""
        if self.acting_as is None:
            return None
        try:
            attributes = json.loads(base64.b64decode(self.acting_as))
        except (ValueError, RecursionError):
            raise InvalidAuthHeader(
                "The identity after the admin key is no base64 of JSON"
            ) from None
        return acted_identity(attributes)


def _with_secret(text: str) -> str:
    """An admin key, without decoration, that has something in it that not everybody knows."""
    key = AdminKey.parse(text).key
    if not key.rpartition("|")[2]:
        raise UsageError("an admin key is NAME|SECRET; without a secret, everybody would have it")
    return key


def acted_identity(attributes: object) -> Identity:
    """
    The identity that an administrator acts as; it does not expire.

    Args:
        attributes: a JSON object with `tokenIdentifier`, or `issuer` and `subject`; what
            `customClaims` has in it becomes claims as those of a token do.

    Raises:
        InvalidAuthHeader: it has neither.
    """
    if isinstance(attributes, dict):
        others = dict(attributes)
        issuer, subject = others.pop("issuer", None), others.pop("subject", None)
        token_identifier = others.pop("tokenIdentifier", None)
        custom = others.pop("customClaims", None)
        if isinstance(token_identifier, str) and issuer is subject is None:
            issuer, _, subject = token_identifier.rpartition("|")
        if isinstance(issuer, str) and isinstance(subject, str):
            if not isinstance(token_identifier, str):
                token_identifier = f"{issuer}|{subject}"
            return Identity(
                issuer=speakable(issuer),
                subject=speakable(subject),
                token_identifier=speakable(token_identifier),
                claims=(_custom_claims(custom) if isinstance(custom, dict) else {})
                | _canonical(others),
            )
    raise InvalidAuthHeader("An identity to act as has a tokenIdentifier, or issuer and subject")
