"""Every committed notebook keeps the rules of `form`, and every rule is seen to catch its violation."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from execute import FOLDER, normalise, text
from form import chain_complaints, complaints
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "5f"}, "text/plain": "Dashboard()"}


def test_the_first_chapters_are_there() -> None:
    assert {path.name[:2] for path in NOTEBOOKS} >= {"00", "01", "02", "03"}
    assert (FOLDER / "00_start_here.ipynb").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_rules(path: Path) -> None:
    assert complaints(nbformat.read(path, as_version=4)) == []


def test_every_chapter_leads_back_and_on() -> None:
    heads = {path.name: nbformat.read(path, as_version=4).cells[0].source for path in NOTEBOOKS}
    assert chain_complaints(heads) == []


@pytest.mark.parametrize(
    "planted", ["# 01 · B\n\n[c](02_c.ipynb)", "# B\n\n[a](00_a.ipynb) [c](02_c.ipynb)", "# 01 · B"]
)
def test_a_chapter_that_leads_nowhere_is_seen(planted: str) -> None:
    heads = {
        "00_a.ipynb": "# 00 · A\n\n[b](01_b.ipynb)\n\nMore of [c](02_c.ipynb).",
        "01_b.ipynb": "# 01 · B\n\n[a](00_a.ipynb) · [Contents](../README.md) · [c](02_c.ipynb)",
        "02_c.ipynb": "# 02 · C\n\n[b](01_b.ipynb)",
    }
    assert chain_complaints(heads) == []
    assert chain_complaints({**heads, "01_b.ipynb": planted})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_make_notebooks_writes_it(path: Path) -> None:
    committed = path.read_text(encoding="utf-8")
    assert committed == text(normalise(nbformat.reads(committed, as_version=4))), "run `make notebooks`"


def chapter(source: str = "1 + 1", *, tags: list[str] | None = None, count: int = 1, **output: object) -> NotebookNode:
    """Return a notebook whose one code cell has this source, these tags and this output."""
    outputs = [new_output(**output)] if output else []
    cell = new_code_cell(source, execution_count=count, outputs=outputs, metadata={"tags": tags} if tags else {})
    return new_notebook(cells=[new_markdown_cell("# Why?"), cell])


def shows(plain: str) -> NotebookNode:
    return chapter(output_type="execute_result", execution_count=1, data={"text/plain": plain})


ERROR = {"output_type": "error", "ename": "Stuck", "evalue": "why", "traceback": ["Stuck: why"]}
KEPT = {
    "plain": shows("2"),
    "a figure's size is no address": shows("<Figure size 640x480 with 1 Axes>"),
    "an expected error": chapter(tags=["raises-exception"], **ERROR),
    "an exemption with its reason": chapter("# the clock of the wall\n# NBVAL_IGNORE_OUTPUT\nnow()"),
    "a picture's letters mean nothing": chapter(output_type="display_data", data={"image/png": "a/tmp/x0x1234567"}),
    "a pipeline is no pip": chapter("pipeline = researcher | analyst"),
}
BROKEN = {
    "not run": (chapter(count=None), "not run once each"),
    "run twice": (chapter(count=2), "not run once each"),
    "an unexpected error": (chapter(**ERROR), "ends in an error"),
    "an error that does not come": (chapter(tags=["raises-exception"]), "raises nothing"),
    "an address": (shows("<Agent object at 0x7f12ab34cd56>"), "an object's address: 0x7f12ab34cd56"),
    "a path": (shows("/home/ada/masbook/data/tickets.csv"), "a path of this machine"),
    "a warning": (chapter(output_type="stream", name="stderr", text="Warning"), "stderr"),
    "a long cell": (chapter("\n".join(["x = 1"] * 26)), "26 lines"),
    "pip": (chapter("%pip install masbook"), "installs packages"),
    "pip by shell": (chapter("!uv pip install masbook"), "installs packages"),
    "environment": (chapter("import os\nos.environ['X'] = '1'"), "reads the environment"),
    "key": (chapter("model = Model(api_key='x')"), "asks for or holds a key"),
    "an exemption without reason": (chapter("now()\n# NBVAL_IGNORE_OUTPUT"), "no comment above it"),
    "a tagged exemption without reason": (chapter(tags=["nbval-skip"]), "no comment that says why"),
}


@pytest.mark.parametrize("notebook", KEPT.values(), ids=KEPT)
def test_what_is_allowed_is_not_complained_about(notebook: NotebookNode) -> None:
    assert complaints(notebook) == []


@pytest.mark.parametrize(("notebook", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_seen(notebook: NotebookNode, words: str) -> None:
    (complaint,) = complaints(notebook)
    assert words in complaint


def test_code_without_prose_between_is_seen() -> None:
    notebook = new_notebook(cells=[new_code_cell("1", execution_count=number) for number in (1, 2)])
    assert complaints(notebook) == ["cells 1 and 2 are code with no prose between them"]


def test_normalising_leaves_out_what_differs_between_machines() -> None:
    notebook = chapter(output_type="display_data", data=WIDGET)
    notebook.metadata |= {"widgets": {"state": {}}, "language_info": {"name": "python", "version": "3.13.0"}}
    notebook.cells[1].metadata |= {"execution": {"iopub.status.busy": "2026-01-01"}, "collapsed": False}
    normal = normalise(notebook)
    assert normal.metadata.keys() == {"kernelspec", "language_info"}
    assert normal.metadata.language_info == {"name": "python"}
    assert [cell.id for cell in normal.cells] == ["cell-1", "cell-2"]
    assert normal.cells[1].metadata == {}
    assert normal.cells[1].outputs[0].data == {"text/plain": "Dashboard()"}
    assert normalise(normal) == normal
    nbformat.validate(normal)


def test_normalising_leaves_out_the_frames_of_a_traceback() -> None:
    notebook = chapter(tags=["raises-exception"], **{**ERROR, "traceback": ["File /home/ada/bus.py", "Stuck: why"]})
    (error,) = normalise(notebook).cells[1].outputs
    assert error.traceback == ["Stuck: why"]
