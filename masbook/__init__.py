"""masbook: a laboratory for multi-agent systems in JupyterLab.

A `World` owns virtual time, and agents are ordinary `async` Python: the same seed gives the same trace, byte for byte.
"""

from .errors import MasbookError
from .runtime.agent import Agent
from .runtime.capability import capability, on
from .runtime.faults import FaultPlan
from .runtime.message import Filter, Message, MessageType
from .runtime.world import Run, World, simulate

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "FaultPlan",
    "Filter",
    "MasbookError",
    "Message",
    "MessageType",
    "Run",
    "World",
    "capability",
    "on",
    "simulate",
]
