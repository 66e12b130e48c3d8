"""masbook: a laboratory for multi-agent systems in JupyterLab.

A `World` owns virtual time, and agents are ordinary `async` Python: the same seed gives the same trace, byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import MasbookError
from .runtime.agent import Agent
from .runtime.capability import capability, on
from .runtime.faults import Crash, FaultPlan, ModelFault, OnMessage, Partition, Pause, Slow
from .runtime.message import Filter, Message, MessageType
from .runtime.protocol import Protocol
from .runtime.run import Run, simulate
from .runtime.security import Rule, Security
from .runtime.trace import Trace
from .runtime.world import World

if TYPE_CHECKING:
    from .coordination import Conflict, ConflictResolver, Orchestrator, Participant, Task, Workflow

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "Conflict",
    "ConflictResolver",
    "Crash",
    "FaultPlan",
    "Filter",
    "MasbookError",
    "Message",
    "MessageType",
    "ModelFault",
    "OnMessage",
    "Orchestrator",
    "Participant",
    "Partition",
    "Pause",
    "Protocol",
    "Rule",
    "Run",
    "Security",
    "Slow",
    "Task",
    "Trace",
    "Workflow",
    "World",
    "capability",
    "on",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Load a name of the coordination room when it is first used (PEP 562): `import masbook` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import coordination

    value = globals()[name] = getattr(coordination, name)
    return value
