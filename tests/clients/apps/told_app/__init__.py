"""Functions that print, and that fail in every way."""
