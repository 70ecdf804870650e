"""What this component is told where it is mounted."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """
    Args:
        most: of anything; to count further is refused.
    """

    most: int = 1_000_000
