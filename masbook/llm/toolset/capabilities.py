"""Capabilities as tools: what any agent can do, a model can call.

A call is an ordinary request of the agent that thinks, over the bus: checks, faults, time-outs and the trace apply, and
its error is told to the model. Scenarios give the toolset to an `LLMAgent`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext, Tool
from pydantic_ai.toolsets import AbstractToolset, DynamicToolset, FunctionToolset

from ...errors import InvalidValue, RequestCycle, RequestTimeout, WorldError
from ...runtime import require
from ...runtime.agent import Agent
from ...runtime.capability import Capability
from ...runtime.message import freeze
from ...runtime.worker import QUERIES
from ..agent import LLMAgent


def capability_tools(
    agent: Agent | str, *names: str, prefix: str = "", timeout: float | None = 30.0
) -> AbstractToolset[LLMAgent]:
    """Return capabilities of an agent as tools, with their own names, descriptions and schemas; all, or those named.

    An agent given by its name is looked up whenever the model is called, so that it may come, go and be replaced. The
    result of a tool is plain data, of a stream the list of its parts; after `timeout` virtual seconds the agent is told
    to stop. An agent that is given its own capabilities calls them, without a message. `prefix` tells the tools of
    several agents apart. InvalidValue for what the agent cannot do.

        LLMAgent("planner", toolsets=[capability_tools(orchestrator, "execute", "status"), capability_tools("oracle")])
    """
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z0-9_-]*", prefix):
        raise InvalidValue(f"prefix is {prefix!r}: give letters, digits and _, such as 'desk_'")
    if timeout is not None:
        require.positive("timeout", timeout)
    chosen = require.names("the capabilities", names)
    if isinstance(agent, Agent):
        return Offer(agent.name, _chosen(agent, chosen), prefix, timeout, agent).toolset()
    if not isinstance(agent, str) or not agent.strip():
        raise InvalidValue(f"capabilities of {agent!r}: give an agent, or the name of one")

    def present(ctx: RunContext[LLMAgent]) -> AbstractToolset[LLMAgent]:
        found = ctx.deps.world.bus.agent(agent)
        if found is None and not chosen:
            return FunctionToolset(instructions=f"No agent is called {agent!r} at present: there are no tools of it.")
        offers = {} if found is None else found.offers
        wanted = {name: offers.get(name) for name in chosen} or _all(offers)
        return Offer(agent, wanted, prefix, timeout).toolset()

    return DynamicToolset(present)


def _all(offers: Mapping[str, Capability]) -> dict[str, Capability | None]:
    """Return what an agent can do, without what every agent can say about itself."""
    return {name: offer for name, offer in offers.items() if offer is not Agent.offers.get(name)}


def _chosen(agent: Agent, names: tuple[str, ...]) -> dict[str, Capability | None]:
    """Return the capabilities of those names, or all; InvalidValue if there are none such."""
    for name in names:
        if name not in agent.offers:
            raise InvalidValue(f"{agent.name} cannot {name!r}; it can {', '.join(agent.offers)}")
    found = {name: agent.offers[name] for name in names} or _all(agent.offers)
    if not found:
        raise InvalidValue(f"{agent.name} has no capabilities; declare one with @capability")
    return dict(found)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an agent offers to a model; None for a capability that nobody has described."""

    to: str
    capabilities: Mapping[str, Capability | None]
    prefix: str
    timeout: float | None
    agent: Agent | None = None

    def toolset(self) -> AbstractToolset[LLMAgent]:
        """Return the tools."""
        return FunctionToolset([self._tool(name, offer) for name, offer in self.capabilities.items()])

    def _tool(self, name: str, offer: Capability | None) -> Tool[LLMAgent]:
        async def call(ctx: RunContext[LLMAgent], /, **arguments: Any) -> Any:
            me = ctx.deps
            self._check(me)
            if offer is not None and self.to == me.name and name not in QUERIES:  # a request would wait for itself
                if hasattr(LLMAgent, name):
                    raise RequestCycle(f"{me.name} -> {me.name}: that is you; ask another agent, or do without")
                result: Any = offer.function(me, **offer.validate(arguments))
                return await self._collected(result, name) if offer.streams else freeze(await result)
            if offer is not None and offer.streams:
                return await self._collected(me.stream(self.to, name, arguments, timeout=None), name)
            return freeze(await me.request(self.to, name, arguments, timeout=self.timeout, on_timeout="cancel"))

        described = (offer.description if offer is not None else "") or f"Ask {self.to} to {name}."
        schema = {"type": "object"} if offer is None else offer.input_schema
        return Tool.from_schema(call, self.prefix + name, described, schema, takes_ctx=True)

    def _check(self, me: Agent) -> None:
        if self.agent is not None and not self.agent.unborn and self.agent.world is not me.world:
            raise WorldError(f"{self.to} lives in another world than {me.name}; spawn them in one")

    async def _collected(self, stream: Any, name: str) -> list[Any]:
        """Return the parts of a stream, if it ends in time."""
        try:
            async with asyncio.timeout(self.timeout), aclosing(stream) as parts:
                return [freeze(part) async for part in parts]
        except TimeoutError as error:
            raise RequestTimeout(f"{name!r} of {self.to} was not complete in {self.timeout:g} s") from error
