"""Who may say who they are: the provider in `auth.json` of the folder `$CONFORMANCE_AUTH`."""

from __future__ import annotations

import json
from pathlib import Path

from engine import App, CustomJwt, env


def _providers() -> list[CustomJwt]:
    folder = env.get("CONFORMANCE_AUTH")
    if folder is None:
        return []
    declared = json.loads((Path(folder) / "auth.json").read_text())
    provider = CustomJwt(
        issuer=declared["issuer"],
        jwks=declared["jwks"],
        algorithm=declared["algorithm"],
        application_id=declared["applicationID"],
    )
    return [provider]


app = App(auth=_providers())
