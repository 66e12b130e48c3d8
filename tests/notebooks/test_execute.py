"""A notebook that is run twice is the same, and what its cells show is compared: also the charts."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from execute import main

PERCENT = """\
# %% [markdown]
# # Does it repeat?

# %%
import sys
import matplotlib.pyplot as plt
print("heard")

# %% [markdown]
# A chart:

# %%
plt.figure(figsize=(1, 1)).subplots().plot([1, 3, 2])
plt.show()

# %% [markdown]
# What depends on the hash seed, the folder and the interpreter:

# %%
hash("masbook"), open("notes.txt").read(), len(sys.executable)

# %% [markdown]
# An error:

# %% tags=["raises-exception"]
{}["nothing"]
"""
PLUGIN = ("-p", "nbval.plugin", "-p", "nbval_charts", "--nbval", "--nbval-current-env")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook made from a percent script, and run."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "draft.py").write_text(PERCENT)
    (folder / "notes.txt").write_text("here")
    assert main(["--from-py", str(folder / "draft.py"), str(folder / "00_draft.ipynb")]) == 0
    return folder / "00_draft.ipynb"


def outputs(path: Path) -> list[list[nbformat.NotebookNode]]:
    return [cell.outputs for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_a_percent_script_becomes_a_notebook_that_was_run(notebook: Path) -> None:
    heard, chart, facts, error = outputs(notebook)
    assert heard[0].text == "heard\n"
    assert "image/png" in chart[0].data
    assert f"'here', {len(sys.executable)})" in facts[0].data["text/plain"]
    assert error[0].traceback == ["KeyError: 'nothing'"]


def test_running_again_changes_no_byte(notebook: Path) -> None:
    before = notebook.read_bytes()
    assert main([str(notebook)]) == 0
    assert notebook.read_bytes() == before
    assert before.endswith(b"}\n")


def test_a_broken_rule_is_reported_with_its_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "draft.py").write_text("# %%\nobject()\n")
    assert main(["--from-py", str(tmp_path / "draft.py"), str(tmp_path / "01_draft.ipynb")]) == 1
    assert "01_draft.ipynb: cell 1 shows an object's address" in capsys.readouterr().err


def test_a_changed_chart_fails(notebook: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")  # nor does the shell's choice of backend matter
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    text = notebook.read_text()
    pytester.path.joinpath("notes.txt").write_text("here")
    pytester.path.joinpath("00_same.ipynb").write_text(text)
    pytester.path.joinpath("01_changed.ipynb").write_text(text.replace("[1, 3, 2]", "[1, 3, 1]"))
    result = pytester.runpytest_subprocess(*PLUGIN, "00_same.ipynb", "01_changed.ipynb")
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["*mismatch 'image/png'*", "FAILED 01_changed.ipynb::Cell 1*"])
