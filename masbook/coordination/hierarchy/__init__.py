"""Hierarchies: a team with roles, skills and superiors, a board with its tasks, and what goes up and down between them.

In order of reading: `team` has the members, what they can do and what they may ask for; `book` the tasks, and what
becomes of each; `board` decides who does which, and when.
"""

from .board import TaskBoard
from .book import TeamTask
from .team import Member, Role, Skill, best_fit, next_level, superiors

__all__ = ["Member", "Role", "Skill", "TaskBoard", "TeamTask", "best_fit", "next_level", "superiors"]
