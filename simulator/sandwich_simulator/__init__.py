"""A Discord to run against: REST and gateway, with faults on demand. It knows nothing of Sandwich."""

from .config import BotConfig, ConfigError, SimulatorConfig
from .simulator import Simulator

__all__ = ["BotConfig", "ConfigError", "Simulator", "SimulatorConfig"]
