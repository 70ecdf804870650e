"""The demo: a help desk over the documentation that every Python carries."""
