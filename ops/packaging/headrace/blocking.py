"""`engine.blocking`, for applications."""

from engine.blocking import *  # noqa: F403 - each name is listed in its __all__
from engine.blocking import __all__ as __all__
