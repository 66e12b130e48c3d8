"""Nothing in the suite reaches a network: a connection to anything but this machine ends the test, cell or benchmark.

A pytest plugin, which pyproject.toml loads; `sitecustomize` beside it does the same in every Python process started
from there, the kernels of notebooks among them. It listens to Python's audit events: nothing is replaced.
PYTEST_DONT_REWRITE: processes of pytest-xdist have imported it already.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
HOSTS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


class RealRequest(BaseException):
    """Something wanted to reach another machine; no `except Exception` takes it for a server that is down."""


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise RealRequest for an audit event that is about another machine."""
    if event not in HOSTS:
        return
    address = arguments[HOSTS[event]]
    unsent = event == "socket.connect" and arguments[0].type == socket.SOCK_DGRAM  # sends nothing
    host = address[0] if isinstance(address, tuple) else address if "get" in event else None  # None: a file's socket
    host = host.decode() if isinstance(host, bytes) else host
    if host and not unsent and not is_here(host):
        raise RealRequest(f"{host}: tests reach no network; give the model 'offline', a script or a recording")


def is_here(host: str) -> bool:
    """Return whether a name or address is this machine's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in ("localhost", socket.gethostname())
    return address.is_loopback or address.is_unspecified


def pytest_runtest_setup() -> None:
    """Block real requests in pydantic-ai too, which says so sooner; a test of a loopback server allows them."""
    models = sys.modules.get("pydantic_ai.models")
    if models is not None:
        models.ALLOW_MODEL_REQUESTS = False  # type: ignore[attr-defined]


paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if HERE not in paths:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, *paths]))
sys.addaudithook(refuse)
