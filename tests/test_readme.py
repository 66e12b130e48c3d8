"""The README shows code that runs, and names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_examples_run_and_are_short():
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"__name__": "readme"}
    for example in examples:  # each goes on from the one before
        exec(compile(example, "README.md", "exec"), names)
        assert len([line for line in example.splitlines() if line.strip()]) <= 20
    assert len(examples) == 2


def test_every_file_it_names_is_there():
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`(tests/[^`]+)`", README)
    assert len(named) > 8
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_module_it_names_is_there():
    modules = set(re.findall(r"`(masbook\.[a-z_.]+)`", README))
    missing = [name for name in modules if not list(ROOT.glob(name.replace(".", "/") + "*"))]
    assert modules and missing == []
