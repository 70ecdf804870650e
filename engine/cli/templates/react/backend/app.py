"""Whose tokens are trusted: with them, `ctx.auth` knows who is asking."""

from headrace import App, CustomJwt, env

from . import dev_issuer


def provider() -> CustomJwt:
    """In development the issuer of this project, elsewhere the one that the environment names."""
    if dev_issuer.is_on():
        return dev_issuer.provider()
    return CustomJwt(
        issuer=env["AUTH_ISSUER"],
        jwks=env["AUTH_JWKS"],
        algorithm="RS256",
        application_id=env["AUTH_AUDIENCE"],
    )


app = App(auth=[provider()])
