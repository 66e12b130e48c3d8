"""Toolsets: what a society offers, given to a model as tools.

In order of reading: `capabilities` makes tools of what any agent can do; `bus` has those for messages and shared state.
"""

from .bus import bus_tools
from .capabilities import capability_tools

__all__ = ["bus_tools", "capability_tools"]
