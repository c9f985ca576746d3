"""An OpenAI-compatible stand-in for vLLM, for development, tests and load."""

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.control import SimulatorState
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.server import Request
from scripts.simulator.simulator import Simulator

__all__ = ["Fault", "FaultKind", "Request", "Simulator", "SimulatorConfig", "SimulatorState"]
