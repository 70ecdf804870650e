"""A component within a component."""

from engine import Component

component = Component("lid")
