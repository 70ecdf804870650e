"""What is mounted."""

from __future__ import annotations

from engine import App
from tests.proofs.shelf import component

app = App()
shelf = app.use(component, name="shelf")
