"""What every test runs under: Hypothesis without deadlines, which a busy machine would miss."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")
