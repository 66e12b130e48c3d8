"""Agents that think: pydantic-ai models as members of the society, in its time and by its seed.

The names below are loaded when they are first used: `import masbook` loads no pydantic-ai.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.lazy import loader

if TYPE_CHECKING:
    from .agent import LLMAgent
    from .analysis import AnalysisPanel, AnalysisReport, Analyst
    from .consensus import reach_consensus
    from .conversation import Conversation
    from .crew import delegate
    from .member import ThinkingMember
    from .model import find_model
    from .offline_model import offline
    from .opinions import Analysis
    from .outcomes import fan_out, pipeline
    from .phases import run_phases
    from .pool import Pool
    from .recording import record, replay
    from .script import scripted, tool_call
    from .toolset import bus_tools, capability_tools, hierarchy_tools

_HOMES = {
    "Analysis": "opinions",
    "AnalysisPanel": "analysis",
    "AnalysisReport": "analysis",
    "Analyst": "analysis",
    "Conversation": "conversation",
    "LLMAgent": "agent",
    "Pool": "pool",
    "ThinkingMember": "member",
    "bus_tools": "toolset",
    "capability_tools": "toolset",
    "delegate": "crew",
    "fan_out": "outcomes",
    "find_model": "model",
    "hierarchy_tools": "toolset",
    "offline": "offline_model",
    "pipeline": "outcomes",
    "reach_consensus": "consensus",
    "record": "recording",
    "replay": "recording",
    "run_phases": "phases",
    "scripted": "script",
    "tool_call": "script",
}
__all__ = [
    "Analysis",
    "AnalysisPanel",
    "AnalysisReport",
    "Analyst",
    "Conversation",
    "LLMAgent",
    "Pool",
    "ThinkingMember",
    "bus_tools",
    "capability_tools",
    "delegate",
    "fan_out",
    "find_model",
    "hierarchy_tools",
    "offline",
    "pipeline",
    "reach_consensus",
    "record",
    "replay",
    "run_phases",
    "scripted",
    "tool_call",
]

__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
