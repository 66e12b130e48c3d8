"""The README shows code that runs, and names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_is_short():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 20


def test_every_file_it_names_is_there():
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`(tests/[^`]+)`", README)
    assert len(named) > 8
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_module_it_names_is_there():
    modules = set(re.findall(r"`(masbook\.[a-z_.]+)`", README))
    missing = [name for name in modules if not list(ROOT.glob(name.replace(".", "/") + "*"))]
    assert modules and missing == []
