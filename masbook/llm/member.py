"""Members of a team that think: each task is a prompt for a model, which has the hierarchy as its tools.

Scenarios spawn them after a `TaskBoard`, among members of any other kind. Write `brief` in a subclass to put tasks
another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_ai.toolsets import AbstractToolset

from ..coordination.hierarchy import Member, Role, Skill, TeamTask
from .agent import LLMAgent
from .budget import Budget, Ledger
from .outcomes import as_text
from .toolset.hierarchy import hierarchy_tools, needed


class ThinkingMember(Member, LLMAgent):
    """A member whose work is what a model makes of the task; the output is the result.

    Each task begins without a history. The limits of LLMAgent hold for a task and all that it is handed on to: who
    delegate to each other for ever stop at the 50th call of a model. What the model fails of, the task fails of, and
    its `on_failure` says what follows.

        world.spawn(TaskBoard())
        world.spawn(ThinkingMember("ada", "specialist", {"billing": 4}, instructions="Escalate what is above 1,000."))
    """

    def __init__(
        self,
        name: str,
        role: Role | str = Role.WORKER,
        skills: Iterable[Skill] | Mapping[str, int] = (),
        *,
        toolsets: Sequence[AbstractToolset[Any]] = (),
        **options: Any,
    ) -> None:
        """Give it its place; `options` are those of Member and of LLMAgent, `toolsets` come after the hierarchy's."""
        own = isinstance(toolsets, list | tuple)
        super().__init__(name, role, skills, toolsets=[hierarchy_tools(), *toolsets] if own else toolsets, **options)

    async def work(self, task: TeamTask) -> Any:
        """Return what the model makes of the task; ModelError and LimitReached if it fails."""
        budget = Ledger.of(self.world).enter(self.handling(), await self._budget(task))
        return await self._think(await self.brief(task), None, budget)

    async def brief(self, task: TeamTask) -> str:
        """Return the prompt for a task: what it is, what it requires, and what has become of its subtasks."""
        requires, able = needed(self, task)
        facts: list[tuple[str, str | None]] = [("Title", task.title), ("Description", task.description)]
        facts += [("Priority", f"{task.priority} of 5"), ("Requires", requires)]
        facts += [("You lack skills that it requires; ask", able), ("Handed to you by", task.by)]
        facts += [("Failed before", "yes" if task.attempts > 1 else "")]
        facts += [(name, as_text(value)) for name, value in task.data.items()]
        for child in task.children:
            part: TeamTask = await self.request(self.board, "task", task=child)
            result = as_text(part.result) if part.status == "completed" else part.error
            facts.append((f"{part.title}, {part.status}", result))
        return "\n".join(f"{name}: {fact}" for name, fact in facts if fact)

    async def _budget(self, task: TeamTask) -> Budget:
        """Return what the task may use: a subtask shares what the nearest task above it has that a model worked on."""
        ledger, above = Ledger.of(self.world), task.parent
        budget = None
        while above is not None and (budget := ledger.find((self.board, above))) is None:
            above = (await self.request(self.board, "task", task=above)).parent
        budget = Budget() if budget is None else Budget(budget.usage, budget.hops + 1)
        ledger.keep((self.board, task.id), budget)
        return budget
