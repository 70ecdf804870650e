"""What looks after those who look after the loops."""

from __future__ import annotations

from engine import Crons, internal

crons = Crons()
crons.interval("repair", internal.functions.repair, hours=1)
