"""The house rules: imports point only downwards, `import masbook` stays light, the public names are these."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import masbook

PACKAGE = Path(masbook.__file__).parent
# Which rooms a room may import; "" is the package's own __init__, which no room imports.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "runtime": {"errors"},
    "coordination": {"errors", "runtime"},
    "llm": {"errors", "runtime", "coordination"},
    "lab": {"errors", "runtime", "coordination", "llm"},
    "scale": {"errors", "runtime", "coordination", "llm", "lab"},
    "": {"errors", "runtime", "coordination", "llm"},
}
RUNTIME_LIBRARIES = {"pydantic", "pydantic_core", "typing_extensions"}  # pydantic, and what it is made of
HEAVY = {
    "pandas",
    "numpy",
    "pydantic_ai",
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "IPython",
    "scipy",
    "networkx",
    "tqdm",
}
PUBLIC = {
    "Agent",
    "Conflict",
    "ConflictResolver",
    "Crash",
    "FaultPlan",
    "Filter",
    "MasbookError",
    "Message",
    "MessageType",
    "ModelFault",
    "OnMessage",
    "Orchestrator",
    "Participant",
    "Partition",
    "Pause",
    "Protocol",
    "Rule",
    "Run",
    "Security",
    "Slow",
    "Task",
    "Trace",
    "Workflow",
    "World",
    "capability",
    "on",
    "simulate",
}


def room(module: tuple[str, ...]) -> str:
    """Return the room of a module given as the parts below masbook; "" for the package itself."""
    return module[0] if module and module[0] != "__init__" else ""


def imports(path: Path, package: Path) -> Iterator[tuple[str, ...]]:
    """Yield each imported module as its dotted parts, relative imports made absolute, also those inside functions."""
    here = ("masbook", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else ()
            module = (*start, *(node.module or "").split(".")) if node.module else start
            below = [(*module, alias.name) for alias in node.names] if module == ("masbook",) else [module]
            yield from below


def upward_imports(package: Path) -> list[str]:
    """Return a sentence for each import that does not point downwards."""
    found = []
    for path in sorted(package.rglob("*.py")):
        home = room(path.relative_to(package).with_suffix("").parts)
        for module in imports(path, package):
            if module[0] != "masbook":
                continue
            target = room(module[1:]) if room(module[1:]) in MAY_IMPORT else ""
            if target not in MAY_IMPORT[home] | {home}:
                found.append(f"{path.relative_to(package).as_posix()} imports {'.'.join(module)}")
    return found


def foreign_imports(room_folder: Path, package: Path) -> set[str]:
    """Return the packages that a room imports and that are neither masbook nor the standard library."""
    tops = {module[0] for path in room_folder.rglob("*.py") for module in imports(path, package)}
    return tops - {"masbook"} - sys.stdlib_module_names


def test_every_room_has_its_place() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} <= MAY_IMPORT.keys()


def test_imports_point_only_downwards() -> None:
    assert upward_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "line", "seen"),
    [
        ("runtime/bus.py", "from ..lab import frames", True),
        ("runtime/bus.py", "from ..lab.frames import messages", True),
        ("runtime/bus.py", "from .. import coordination", True),
        ("runtime/bus.py", "from masbook import World", True),
        ("runtime/bus.py", "def later():\n    import masbook.llm.model", True),
        ("coordination/sync.py", "from ..llm import model", True),
        ("__init__.py", "from .lab import frames", True),
        ("errors.py", "from .runtime.world import World", True),
        ("runtime/bus.py", "from ..errors import MasbookError\nfrom .message import Message\nimport asyncio", False),
        ("lab/frames.py", "import pandas\nfrom ..runtime.trace import Trace\nfrom .. import errors", False),
        ("__init__.py", "from .runtime.world import World\nfrom .errors import MasbookError", False),
    ],
)
def test_an_import_that_points_upwards_is_seen(path: str, line: str, seen: bool, tmp_path: Path) -> None:
    module = tmp_path / path
    module.parent.mkdir(exist_ok=True)
    module.write_text(line)
    assert bool(upward_imports(tmp_path)) == seen


def test_the_runtime_needs_pydantic_only() -> None:
    assert foreign_imports(PACKAGE / "runtime", PACKAGE) <= RUNTIME_LIBRARIES


def test_a_foreign_library_is_seen(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text("def now():\n    from numpy.random import Generator\nimport asyncio, pydantic\n")
    assert foreign_imports(tmp_path, tmp_path) == {"numpy", "pydantic"}


def loaded(statement: str) -> set[str]:
    """Return the top-level modules a fresh interpreter holds after the statement."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_masbook_is_light() -> None:
    modules = loaded("import masbook")
    assert "masbook" in modules
    assert not modules & HEAVY


def test_a_heavy_import_is_seen() -> None:
    assert "tqdm" in loaded("import masbook, tqdm") & HEAVY


def test_the_public_names_are_pinned() -> None:
    assert set(masbook.__all__) == PUBLIC
    assert masbook.__all__ == sorted(masbook.__all__)
    assert all(getattr(masbook, name).__doc__ for name in PUBLIC)
