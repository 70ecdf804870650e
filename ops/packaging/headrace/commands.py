"""`engine.commands`, for whoever adds verbs to the command line."""

from engine.commands import *  # noqa: F403 - each name is listed in its __all__
from engine.commands import __all__ as __all__
