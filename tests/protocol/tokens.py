"""Keys and tokens of an identity provider that is only for tests."""

from __future__ import annotations

import base64
import json
from typing import Any

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
