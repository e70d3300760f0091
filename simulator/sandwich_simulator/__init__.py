"""A simulated Discord: REST and gateway, with faults on demand. It does not depend on Sandwich."""

from .config import BotConfig, ConfigError, SimulatorConfig
from .simulator import Simulator

__all__ = ["BotConfig", "ConfigError", "Simulator", "SimulatorConfig"]
