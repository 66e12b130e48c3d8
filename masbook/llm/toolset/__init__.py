"""Toolsets: what a society offers, given to a model as tools.

In order of reading: `capabilities` makes tools of what any agent can do; `bus` has those for messages and shared state,
and `hierarchy` those of a member of a team.
"""

from .bus import bus_tools
from .capabilities import capability_tools
from .hierarchy import hierarchy_tools

__all__ = ["bus_tools", "capability_tools", "hierarchy_tools"]
