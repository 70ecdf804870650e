"""Keys and tokens of an identity provider that is only for tests."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from engine.app.component import CustomJwt
from engine.kernel.runtime import EPOCH_2026_NS

ISSUER = "https://issuer.test"
AUDIENCE = "app"
NOW_S = EPOCH_2026_NS // 1_000_000_000

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256", "use": "sig"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256", "use": "sig"})
NEW_RSA = RSAKey.generate_key(2048, {"kid": "new", "alg": "RS256", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256", "use": "sig"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"})


def key_set(*keys: Any) -> dict[str, Any]:
    """The public halves."""
    return dict(KeySet(list(keys)).as_dict(private=False))


def data_url(document: object) -> str:
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return f"data:application/json;base64,{text}"


def custom(**fields: Any) -> CustomJwt:
    """A provider whose keys are in the declaration."""
    given: dict[str, Any] = {
        "issuer": ISSUER,
        "jwks": data_url(key_set(RSA, EC)),
        "algorithm": "RS256",
        "application_id": AUDIENCE,
    }
    return CustomJwt(**given | fields)


def token(
    *, key: Any = RSA, header: dict[str, Any] | None = None, lifetime_s: float = 3600, **claims: Any
) -> str:
    """A good token for alice, except for what is said otherwise; a claim of None is left out."""
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW_S}
    given |= {"exp": NOW_S + lifetime_s} | claims
    payload = {name: claim for name, claim in given.items() if claim is not None}
    head = {"alg": "RS256", "kid": key.kid} | (header or {})
    head = {name: value for name, value in head.items() if value is not None}
    algorithms = ["RS256", "RS512", "ES256", "EdDSA", "HS256", "none"]
    return jwt.encode(head, payload, key, algorithms=algorithms)


def signed(head: object, payload: object, *, key: Any = RSA) -> str:
    """A token of whatever parts, which no library would make; bytes are taken as they are."""
    text = ".".join(encoded(part) for part in (head, payload))
    return f"{text}.{encoded(signature(text.encode(), key))}"


def encoded(part: object) -> str:
    """A part of a token: bytes, or a JSON document."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature(data: bytes, key: Any = RSA) -> bytes:
    """As the kind of key signs: RS256, ES256 or EdDSA."""
    private: Any = key.private_key
    match key:
        case RSAKey():
            return bytes(private.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        case ECKey():
            der = private.sign(data, ec.ECDSA(hashes.SHA256()))
            return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))
    return bytes(private.sign(data))
