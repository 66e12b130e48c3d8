"""The set-up keeps its promises: one set of packages in three files, one list of commands, nothing skipped in CI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = {"jupyterlab", "ipywidgets", "pandas", "matplotlib", "pydantic-ai", "nbval", "pytest"}
TARGETS = {"help", "install", "lab", "test", "lint", "format", "notebooks", "bench"}


def requirements(lines: Iterable[str]) -> dict[str, Requirement]:
    return {canonicalize_name(line.name): line for line in map(Requirement, lines)}


def pins(text: str) -> dict[str, Version]:
    """Return the versions of a constraints file; raise ValueError at a line that is more or less than name==version."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*)==([a-z0-9.!+]+)", line)
        if not match or match[1] in found:
            raise ValueError(f"not a plain, single pin: {line}")
        found[match[1]] = Version(match[2])
    return found


def disagreements(conda: dict[str, Requirement], project: dict[str, Requirement], needed: set[str]) -> list[str]:
    """Return what environment.yml lacks, has too much, or specifies otherwise than pyproject.toml."""
    lacking = [f"{name} is missing" for name in sorted(needed - conda.keys())]
    other = [
        f"{name} is {line.specifier or 'any'}, not {project[name].specifier}" if name in project else f"{name} is extra"
        for name, line in conda.items()
        if name not in project or line.specifier != project[name].specifier
    ]
    return lacking + other


def needs(name: str, extras: tuple[str, ...], seen: set[str]) -> Iterator[str]:
    """Yield every package that `name` needs on this machine, through all levels."""
    for line in map(Requirement, distribution(name).requires or []):
        applies = line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        key = f"{canonicalize_name(line.name)}{sorted(line.extras)}"
        if applies and key not in seen:
            seen.add(key)
            yield canonicalize_name(line.name)
            try:
                yield from needs(line.name, tuple(line.extras), seen)
            except PackageNotFoundError:
                continue  # its pin is asked for above


RUNTIME = requirements(PROJECT["dependencies"])
TOOLS = requirements(PROJECT["optional-dependencies"]["dev"])


def test_the_packages_the_user_named_are_dependencies() -> None:
    assert RUNTIME.keys() | TOOLS.keys() >= NAMED


def test_environment_yml_agrees_with_pyproject() -> None:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = requirements(entry for entry in entries if isinstance(entry, str))
    assert conda.pop("python").specifier == PROJECT["requires-python"]
    assert not conda.pop("pip").specifier
    assert disagreements(conda, RUNTIME | TOOLS, needed=RUNTIME.keys() | NAMED) == []
    assert [entry for entry in entries if not isinstance(entry, str)] == [{"pip": ["-e .[dev]"]}]


def test_a_disagreement_is_seen() -> None:
    conda = requirements(["pandas>=2", "tqdm>=4.67", "left-pad"])
    project = requirements(["pandas>=3,<4", "tqdm>=4.67", "scipy>=1.17"])
    found = disagreements(conda, project, needed={"pandas", "scipy"})
    assert found == ["scipy is missing", "pandas is >=2, not <4,>=3", "left-pad is extra"]


def test_constraints_pin_every_dependency_at_every_level() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text())
    assert list(pinned) == sorted(pinned)
    assert RUNTIME.keys() | TOOLS.keys() <= pinned.keys()
    assert set(needs("masbook", ("dev",), set())) <= pinned.keys()


def test_constraints_satisfy_pyproject() -> None:
    pinned = pins((ROOT / "constraints.txt").read_text())
    assert [str(line) for name, line in (RUNTIME | TOOLS).items() if pinned[name] not in line.specifier] == []


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.0", "3.13.0"])
def test_the_pinned_packages_install_on_every_python_we_promise(python: str) -> None:
    pinned = pins((ROOT / "constraints.txt").read_text())
    here = {canonicalize_name(package.name): package for package in distributions()}
    demands = {
        name: SpecifierSet(here[name].metadata.get("Requires-Python", "")) for name in pinned.keys() & here.keys()
    }
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert [name for name, demand in demands.items() if python not in demand] == []


@pytest.mark.parametrize(
    "line", ["pandas", "pandas>=3", "pandas @ https://example.org/p.whl", "-e .", "--index-url x", "pandas==3.1 # why"]
)
def test_a_line_that_is_no_plain_pin_is_seen(line: str) -> None:
    with pytest.raises(ValueError, match="not a plain, single pin"):
        pins(f"numpy==2.4.6\n{line}\n")


def test_make_lists_every_target_and_that_is_the_default() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    rows = dict(re.findall(r"^make (\w+) +(\S.*)$", listed, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rows.keys() == TARGETS == set(phony[1].split() if phony else ())


def test_ci_runs_the_readme_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
    assert "make test" in (ROOT / "README.md").read_text()


def test_the_kernel_is_this_interpreter_whatever_the_machine_has(tmp_path: Path) -> None:
    for folder in (tmp_path / ".local/share/jupyter", tmp_path / "path"):
        kernel = folder / "kernels/python3"
        kernel.mkdir(parents=True)
        spec = {"argv": ["/elsewhere/python", "-f", "{connection_file}"], "display_name": "other", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
    code = (
        "from jupyter_client.manager import KernelManager as K; print(K(kernel_name='python3').format_kernel_cmd()[0])"
    )
    command = ["make", "-s", f"PYTHON={sys.executable}", f'--eval=probe: ; @$(PYTHON) -c "{code}"', "probe"]
    surroundings = os.environ | {"HOME": str(tmp_path), "JUPYTER_PATH": str(tmp_path / "path")}
    ran = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == sys.executable


SKIPS = """
import pytest

def test_skips():
    pytest.skip("no server here")

@pytest.mark.browser
def test_looks():
    pass

@pytest.mark.xfail(strict=True)
def test_known_defect():
    assert False
"""


@pytest.mark.parametrize("ci", ["", "true"])
def test_where_ci_is_set_a_skip_fails(ci: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")  # no Chromium
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(SKIPS)
    pytester.makepyfile(test_absent="import pytest\npytest.importorskip('no_such_package')\n")
    pytester.makeini("[pytest]\nmarkers = browser: needs Chromium\n")
    result = pytester.runpytest_subprocess("--continue-on-collection-errors")
    expected = {"failed": 1, "errors": 2, "xfailed": 1} if ci else {"skipped": 3, "xfailed": 1}
    result.assert_outcomes(**expected)
    result.stdout.fnmatch_lines(["*Chromium is not installed*"] if ci else ["*3 skipped*"])
