"""Who may say who they are, and a component that clients do not reach."""

from __future__ import annotations

from engine import App
from tests.proofs.frames_vault import component
from tests.protocol.tokens import custom

app = App(auth=[custom()])
vault = app.use(component, name="vault")
