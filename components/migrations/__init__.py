"""
Changes of all documents of a table, in batches, which go on where they stopped.

    migrations = Migrations(app.use(component, name="migrations"))

    @migrations.define("users")
    async def set_theme(ctx: MutationCtx, user: User) -> dict[str, Value] | None:
        return None if "theme" in user else {"theme": "light"}

    await migrations.run_one(ctx, set_theme)    # or: headrace migrations run migrations:set_theme

README.md says more.
"""

from components.migrations.client import Migrations, Options, run_to_completion
from components.migrations.protocol import Change, DryRun, MigrationStatus, PartStatus, Skipped
from engine import Component

component = Component("migrations")

__all__ = [
    "Change",
    "DryRun",
    "MigrationStatus",
    "Migrations",
    "Options",
    "PartStatus",
    "Skipped",
    "component",
    "run_to_completion",
]
