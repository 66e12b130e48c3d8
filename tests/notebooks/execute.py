"""Runs notebooks in place and writes them so that running them again changes no byte; `make notebooks` calls it.

python tests/notebooks/execute.py                                      all of notebooks/
python tests/notebooks/execute.py notebooks/01_agents.ipynb            one
python tests/notebooks/execute.py --from-py draft.py notebooks/01_agents.ipynb
                                                                       one, from a script in jupytext's percent format
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from form import complaints
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval_charts import settle_environment

FOLDER = Path(__file__).parents[2] / "notebooks"
CELL_SECONDS = 60
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in `folder` with the kernel that nbval uses, that of this interpreter, and keep the outputs."""
    settle_environment()
    kernel = AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager())
    NotebookClient(
        notebook,
        km=kernel,
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    ).execute(cleanup_kc=True, stderr=subprocess.DEVNULL)  # only the kernel's own log: cells write to its sockets


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with nothing in it that differs between two runs or two machines."""
    cells = [_normal_cell(cell, number) for number, cell in enumerate(notebook.cells, start=1)]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})


def text(notebook: NotebookNode) -> str:
    """Return the notebook as the text of its file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _normal_cell(cell: NotebookNode, number: int) -> dict[str, object]:
    tags = cell.metadata.get("tags")
    normal = {
        "id": f"cell-{number}",
        "cell_type": cell.cell_type,
        "metadata": {"tags": tags} if tags else {},
        "source": cell.source.rstrip("\n"),
    }
    if cell.cell_type == "code":
        normal["execution_count"] = cell.execution_count
        normal["outputs"] = [kept for output in cell.outputs if (kept := _normal_output(output))]
    return normal


def _normal_output(output: NotebookNode) -> dict[str, object] | None:
    if output.output_type == "error":  # the frames of a traceback name this machine's folders
        return {**output, "traceback": [f"{output.ename}: {output.evalue}"]}
    if "data" in output:  # a widget's view is a random id, and shows nothing without its kernel
        data = {kind: content for kind, content in output.data.items() if kind != WIDGET_VIEW}
        return {**output, "data": data} if data else None
    return dict(output)


def _read(path: Path) -> NotebookNode:
    return jupytext.read(path, fmt="py:percent") if path.suffix == ".py" else nbformat.read(path, as_version=4)


def main(arguments: list[str]) -> int:
    """Run the notebooks named in the arguments, or all; return 1 if one of them breaks a rule of `form`."""
    parser = argparse.ArgumentParser(description="Run notebooks in place, and write them without what differs.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook in notebooks/")
    parser.add_argument("--from-py", type=Path, metavar="SCRIPT", help="take the cells from this percent script")
    options = parser.parse_args(arguments)
    targets = options.notebooks or sorted(FOLDER.glob("*.ipynb"))
    if options.from_py and len(targets) != 1:
        parser.error("--from-py writes exactly one notebook: name it")
    broken = 0
    for target in targets:
        notebook = normalise(_read(options.from_py or target))
        execute(notebook, target.parent)
        notebook = normalise(notebook)
        target.write_text(text(notebook), encoding="utf-8")
        for complaint in complaints(notebook):
            broken = 1
            sys.stderr.write(f"{target.name}: {complaint}\n")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
