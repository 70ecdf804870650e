"""A component: its functions are for the application that mounts it."""

from __future__ import annotations

from engine import Component

component = Component("vault")
