from engine import App, CustomJwt, Oidc, env

from ..limiter import component as limiter

app = App(
    auth=[
        CustomJwt(
            issuer=env["ISSUER"],
            jwks=env["JWKS_URL"],
            algorithm="RS256",
            application_id="chat",
        ),
        Oidc(domain="https://auth.example.com", application_id="chat"),
    ]
)
limits = app.use(limiter, name="limits")
