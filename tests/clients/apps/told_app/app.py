"""An application with a component, of which clients are told nothing."""

from __future__ import annotations

from components.rate_limiter import component
from engine import App

app = App()
limits = app.use(component, name="limits")
