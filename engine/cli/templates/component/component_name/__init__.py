"""
Counts things, by name.

    things = ComponentName(app.use(component, name="things"))

    await things.add(ctx, "apples")
"""

from headrace import Component

from .client import ComponentName
from .settings import Settings

component = Component("component_name", config=Settings)

__all__ = ["ComponentName", "Settings", "component"]
