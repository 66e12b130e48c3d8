"""What the four agents of a panel are told, and what they may say: typed outputs, each with a judgement of its own.

The field descriptions are part of what a model reads. The offline model fills them by the rules of `reading`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["low", "medium", "high"]
Mood = Literal["negative", "neutral", "positive"]


class Analysis(BaseModel):
    """What an agent found out about a ticket; `label` is its judgement."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    judges: ClassVar[str]  # the field with the judgement
    analysis: str = Field(description="What you found and why, in one or two sentences.")
    confidence: float = Field(ge=0, le=1, description="The probability that your judgement is right.")
    cues: list[str] = Field(description="The words of the ticket that speak for it.")
    recommendations: list[str] = Field(description="What should be done, the most important first.")
    requires_action: bool = Field(description="Whether somebody has to act now.")

    @property
    def label(self) -> str:
        """The judgement, such as `high`."""
        return str(getattr(self, self.judges))


class SentimentAnalysis(Analysis):
    """How the customer feels."""

    judges = "sentiment"
    sentiment: Mood = Field(description="The mood of the customer; beware of irony.")


class TechnicalAnalysis(Analysis):
    """How hard the problem is to solve."""

    judges = "complexity"
    complexity: Level = Field(description="low: a page of the handbook; high: several systems, specialists needed.")


class BusinessAnalysis(Analysis):
    """What the problem costs the customer."""

    judges = "impact"
    impact: Level = Field(description="low: nothing waits for it; high: work stands still, or money is lost.")


class RiskAnalysis(Analysis):
    """What the problem may cost us."""

    judges = "risk"
    risk: Level = Field(description="medium: we may lose the customer; high: law, fraud, data, or the press.")


KINDS: dict[str, type[Analysis]] = {
    "sentiment": SentimentAnalysis,
    "technical": TechnicalAnalysis,
    "business": BusinessAnalysis,
    "risk": RiskAnalysis,
}
INSTRUCTIONS = {
    "sentiment": "You read support tickets for their mood: how does the customer feel, and how can we win them back?",
    "technical": "You judge how hard the problem of a support ticket is to solve, and whom it takes.",
    "business": "You judge what the problem of a support ticket costs the customer, and how soon it must be solved.",
    "risk": "You judge what a support ticket may cost us: the customer, a lawsuit, a breach of security, our name.",
}
