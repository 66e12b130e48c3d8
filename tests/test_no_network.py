"""Real requests are blocked in the whole suite: in tests, in processes they start, and in the kernels of notebooks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from threading import Thread

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from no_network import RealRequest

from masbook import World
from masbook.errors import MasbookError

ELSEWHERE = "192.0.2.1"  # an address for documentation: nobody has it


@pytest.mark.parametrize("host", [ELSEWHERE, "api.openai.com", "2001:db8::1", "127.0.0.1.example.org"])
def test_another_machine_cannot_be_reached(host):
    with pytest.raises(RealRequest, match="reach no network"):
        socket.create_connection((host, 443), timeout=1)
    with pytest.raises(RealRequest):
        socket.getaddrinfo(host, 443)
    with pytest.raises(RealRequest), socket.socket(type=socket.SOCK_DGRAM) as line:
        line.sendto(b"hello", (ELSEWHERE, 53))


def test_this_machine_can():
    with socket.create_server(("localhost", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
    assert socket.getaddrinfo("localhost", 80)


@pytest.mark.parametrize("allowed", [False, True], ids=["pydantic-ai refuses", "pydantic-ai allows it"])
def test_a_planted_request_to_a_provider_is_refused(monkeypatch, allowed):
    """Also where `ALLOW_MODEL_REQUESTS` has been forgotten, and with a key."""
    from pydantic_ai import models

    from masbook.llm import LLMAgent

    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key-12345678")
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", allowed)
    with World(clock="real") as world, pytest.raises((RealRequest, MasbookError, RuntimeError)) as caught:
        world.run(world.spawn(LLMAgent("agent", model="openai:gpt-4o", attempts=1, timeout=5.0)).ask("Hello?"))
    assert type(caught.value) is RealRequest if allowed else "not allowed" in str(caught.value)


def test_nor_from_a_thread_or_a_process():
    seen = []

    def reach():
        try:
            asyncio.run(asyncio.open_connection(ELSEWHERE, 80))
        except RealRequest as error:
            seen.append(error)

    thread = Thread(target=reach)
    thread.start()
    thread.join()
    assert len(seen) == 1
    program = f"import socket; socket.create_connection(({ELSEWHERE!r}, 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode and "RealRequest" in done.stderr


def test_nor_from_a_notebook():
    cell = (
        f"import socket\ntry:\n    socket.create_connection(({ELSEWHERE!r}, 80), timeout=1)\nexcept OSError:\n    pass"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    with pytest.raises(CellExecutionError, match="RealRequest"):
        NotebookClient(notebook, timeout=60).execute()
