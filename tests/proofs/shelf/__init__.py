"""A component with a table of its own, for the proof of subscriptions."""

from __future__ import annotations

from engine import Component

component = Component("shelf")
