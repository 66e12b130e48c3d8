"""The rules a committed notebook keeps, beyond what nbval compares; `complaints` lists what breaks them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise

from nbformat import NotebookNode

LONGEST_CELL = 25
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|var/folders)/\w")
NBVAL = re.compile(r"^\s*#\s*(?:NBVAL|PYTEST_VALIDATE)_\w+\s*$", re.MULTILINE)
REASON = re.compile(r"^\s*#\s*(?!NBVAL|PYTEST_VALIDATE)\w.*$")
FORBIDDEN = {
    "installs packages": re.compile(
        r"\b(?:pip|conda|uv)\s+(?:install|add)\b|^\s*[%!]+\s*(?:pip|conda|uv)\b", re.MULTILINE
    ),
    "reads the environment": re.compile(r"\bos\.environ\b|\bgetenv\b|^\s*%env\b", re.MULTILINE),
    "asks for or holds a key": re.compile(r"\bgetpass\b|\bapi_key\b|\w*API_KEY\b|\bsk-\w{8,}"),
}


def complaints(notebook: NotebookNode) -> list[str]:
    """Return a sentence for each broken rule, with the number of the cell; an empty list is what we want."""
    found = [*_order(notebook), *_prose(notebook)]
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            found += [f"cell {number} {what}" for what in (*_source(cell), *_outputs(cell))]
    return found


def chain_complaints(heads: dict[str, str]) -> list[str]:
    """Return a sentence for each chapter, by file name, whose first cell does not lead to both its neighbours."""
    found, names = [], sorted(heads)
    for before, name, after in zip([None, *names], names, [*names[1:], None], strict=False):
        title, _, rest = heads[name].partition("\n")
        if not title.startswith(f"# {name[:2]} · "):
            found.append(f"{name} does not begin with '# {name[:2]} · '")
        linked = re.findall(r"\]\((\d\d_\w+\.ipynb)\)", rest.strip().split("\n")[0])
        if linked != [neighbour for neighbour in (before, after) if neighbour is not None]:
            found.append(f"{name} leads to {linked}; its neighbours are {before} and {after}")
    return found


def _order(notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the code cells were not run once each from top to bottom: {counts}"


def _prose(notebook: NotebookNode) -> Iterator[str]:
    for number, (one, other) in enumerate(pairwise(notebook.cells), start=1):
        if one.cell_type == other.cell_type == "code":
            yield f"cells {number} and {number + 1} are code with no prose between them"


def _source(cell: NotebookNode) -> Iterator[str]:
    lines = cell.source.splitlines()
    if len(lines) > LONGEST_CELL:
        yield f"has {len(lines)} lines, more than {LONGEST_CELL}"
    yield from (what for what, pattern in FORBIDDEN.items() if pattern.search(cell.source))
    tags = cell.metadata.get("tags", [])
    if any(tag.startswith("nbval-") for tag in tags) and not (lines and REASON.match(lines[0])):
        yield "is exempt from a check by a tag, and its first line is no comment that says why"
    for before, line in pairwise(["", *lines]):
        if NBVAL.match(line) and not REASON.match(before):
            yield f"says {line.strip()} with no comment above it that says why"


def _outputs(cell: NotebookNode) -> Iterator[str]:
    expects_error = "raises-exception" in cell.metadata.get("tags", [])
    if expects_error != any(output.output_type == "error" for output in cell.outputs):
        yield "is tagged raises-exception and raises nothing" if expects_error else "ends in an error"
    if any(output.get("name") == "stderr" for output in cell.outputs):
        yield "writes to stderr, where warnings and progress bars carry paths and times"
    text = json.dumps([_readable(output) for output in cell.outputs])
    for what, pattern in {"an object's address": ADDRESS, "a path of this machine": MACHINE_PATH}.items():
        if match := pattern.search(text):
            yield f"shows {what}: {match.group()}"


def _readable(output: NotebookNode) -> dict[str, object]:
    """Return the output without its pictures, whose base64 may spell anything."""
    data = {
        kind: content for kind, content in output.get("data", {}).items() if kind not in ("image/png", "image/jpeg")
    }
    return {**output, "data": data}
