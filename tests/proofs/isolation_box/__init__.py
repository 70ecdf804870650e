"""A component, which mounts another."""

from dataclasses import dataclass

from engine import Component
from tests.proofs.isolation_lid import component as lid_component


@dataclass
class Settings:
    path: str


component = Component("box", config=Settings)
lid = component.use(lid_component, name="lid")
