"""Conflicts: who gets what several want, decided by strategies, by votes, by auctions, or by a person.

In the order of reading: `claims`, what is disputed and how it ends; `case`, how a strategy hears the participants;
`strategies`, the five; `voting`, the rules of elections; `resolver`, which tries one strategy after the other;
`detection`, which finds conflicts that nobody reports. `auction` stands alone: who does a task, and at what price.
"""

from .case import Negotiator, Proposal
from .claims import Conflict, Participant, Resolution
from .detection import ConflictDetector
from .resolver import FIRST, ConflictResolver
from .strategies import STRATEGIES
from .voting import RULES, Ballot

__all__ = [
    "FIRST",
    "RULES",
    "STRATEGIES",
    "Ballot",
    "Conflict",
    "ConflictDetector",
    "ConflictResolver",
    "Negotiator",
    "Participant",
    "Proposal",
    "Resolution",
]
