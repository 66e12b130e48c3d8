"""masbook: a laboratory for multi-agent systems in JupyterLab.

A `World` owns virtual time, and agents are ordinary `async` Python: the same seed gives the same trace, byte for byte.
"""

from .errors import MasbookError
from .runtime.agent import Agent
from .runtime.capability import capability, on
from .runtime.faults import Crash, FaultPlan, OnMessage, Partition, Pause, Slow
from .runtime.message import Filter, Message, MessageType
from .runtime.protocol import Protocol
from .runtime.run import Run, simulate
from .runtime.security import Rule, Security
from .runtime.trace import Trace
from .runtime.world import World

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "Crash",
    "FaultPlan",
    "Filter",
    "MasbookError",
    "Message",
    "MessageType",
    "OnMessage",
    "Partition",
    "Pause",
    "Protocol",
    "Rule",
    "Run",
    "Security",
    "Slow",
    "Trace",
    "World",
    "capability",
    "on",
    "simulate",
]
