"""A desk for a person: what the agents cannot decide is shown in the notebook, with a button for each answer.

Give it to a `ConflictResolver` as `ask_person=desk`, show it in a cell, and play the scenario in a Dashboard. A run
that nobody watches goes on without an answer, when the resolver's patience is over.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ipywidgets as widgets

from ..coordination.conflict import Conflict

TICK = 0.1  # virtual seconds between two looks at what has been clicked


class Desk:
    """Shows what is pending, and returns what a person clicks.

    `note` says what happens without an answer. Only the kernel's loop touches widgets: the world's thread leaves
    messages there, and looks from time to time whether there is a choice.

        desk = Desk("no answer within 20 virtual seconds: the default decides")
        resolver = ConflictResolver(ask_person=desk, patience=20.0, default="priority")
    """

    def __init__(self, note: str = "") -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # built outside a loop, it shows nothing
            self._loop = asyncio.get_running_loop()
        self._cards: dict[object, widgets.VBox] = {}
        self._list = widgets.VBox()
        self._note = note
        self.widget = widgets.VBox([widgets.HTML(f"<b>For you to decide</b> {html.escape(note)}"), self._list])
        self.widget.add_class("masbook-desk")
        self._show()

    async def __call__(self, conflict: Conflict) -> str:
        """Return the participant whose button is clicked."""
        choices: list[str] = []
        card = object()
        self._soon(self._put, card, conflict, choices)
        try:
            while not choices:
                await asyncio.sleep(TICK)
        finally:
            self._soon(self._take, card)
        return choices[0]

    def _soon(self, action: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action, *args)

    def _put(self, card: object, conflict: Conflict, choices: list[str]) -> None:
        """Show a conflict, with a button for each claim."""
        lines: list[widgets.Widget] = [widgets.HTML(html.escape(f"{conflict.id}: {conflict.description}"))]
        for party in conflict.by_rank():
            claim = ", ".join(f"{key} {value}" for key, value in party.claim.items())
            button = widgets.Button(description=party.name, layout=widgets.Layout(width="auto"))
            button.on_click(partial(_choose, choices, party.name))
            text = widgets.HTML(html.escape(f"claims {claim}; priority {party.priority:g}"))
            lines.append(widgets.HBox([button, text]))
        self._cards[card] = widgets.VBox(lines)
        self._show()

    def _take(self, card: object) -> None:
        self._cards.pop(card, None)
        self._show()

    def _show(self) -> None:
        self._list.children = [*self._cards.values()] or [widgets.HTML("nothing is pending")]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Show the widget in a notebook, and the same text everywhere else."""
        return {**self.widget._repr_mimebundle_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Desk({self._note!r})"


def _choose(choices: list[str], name: str, button: widgets.Button) -> None:
    choices.append(name)
