"""`engine.testing`, by the name that applications use."""

from engine.testing import *  # noqa: F403 - each name is listed in engine.testing.__all__
from engine.testing import __all__ as __all__
