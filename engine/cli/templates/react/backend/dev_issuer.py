"""
FOR DEVELOPMENT ONLY: an issuer of tokens that believes everybody.

Whoever says that they are Ada gets a token that says so. It is on under `headrace dev` and off
everywhere else: there its key is not trusted, and it signs nothing. The key is made when it is
first needed, and stays in .dev-issuer.json, which git ignores.
"""

import json
import os
from pathlib import Path
from urllib.parse import quote

from headrace import BlockingActionCtx, ConvexError, CustomJwt, action, env
from joserfc import jwt  # comes with headrace[auth]
from joserfc.jwk import ECKey

ISSUER = "https://dev-issuer.invalid"
AUDIENCE = "{{name}}"
TOKEN_S = 3600
NAME_LETTERS_MAX = 40
KEY_FILE = Path(__file__).parents[1] / ".dev-issuer.json"


def is_on() -> bool:
    """Whether this is `headrace dev`, which says so; `headrace serve` says that it is not."""
    return bool(env.get("HEADRACE_DEV"))


def provider() -> CustomJwt:
    """Trust in this issuer's key, for `App(auth=[...])`."""
    keys = json.dumps({"keys": [key().as_dict(private=False)]})
    return CustomJwt(
        issuer=ISSUER,
        jwks=f"data:application/json,{quote(keys)}",
        algorithm="ES256",
        application_id=AUDIENCE,
    )


@action
def sign_in(ctx: BlockingActionCtx, name: str) -> str:
    """A token for whoever says that this is their name."""
    if not is_on():
        raise ConvexError("This sign-in is for development. Put your provider in src/auth.tsx.")
    name = " ".join(name.split())
    if not 0 < len(name) <= NAME_LETTERS_MAX:
        raise ConvexError(f"A name has 1 to {NAME_LETTERS_MAX} letters.")
    now = int(ctx.now_ms / 1000)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": name.casefold(),
        "name": name,
        "iat": now,
        "exp": now + TOKEN_S,
    }
    signing = key()
    return jwt.encode({"alg": "ES256", "kid": signing.kid}, claims, signing)


def key() -> ECKey:
    """The key of this project."""
    if not KEY_FILE.exists():
        made = ECKey.generate_key("P-256", auto_kid=True)
        # Nobody else on this machine may read it, and of two that make one the second fails.
        with open(os.open(KEY_FILE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(made.as_dict(private=True), file)
    return ECKey.import_key(json.loads(KEY_FILE.read_text()))
