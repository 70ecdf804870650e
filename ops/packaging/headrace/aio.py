"""`engine.aio`, for applications."""

from engine.aio import *  # noqa: F403 - each name is listed in its __all__
from engine.aio import __all__ as __all__
