"""What goes on by itself."""

from __future__ import annotations

from engine import Crons, internal

crons = Crons()
crons.hourly("forget limits that are full again", internal.functions.forget)
