"""The files around the package agree: pyproject, constraints, environment, Makefile, wheel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What the project's first user asked the environment to hold.
NAMED = {
    "pyro-ppl",
    "torch",
    "pgmpy",
    "numpy",
    "torchvision",
    "torchaudio",
    "networkx",
    "pytest",
}


def _requirements(lines: list[str]) -> list[Requirement]:
    """The lines' requirements on other projects (an extra may name the project's other extras)."""
    parsed = [Requirement(line) for line in lines]
    return [r for r in parsed if canonicalize_name(r.name) != PROJECT["name"]]


def _direct() -> list[Requirement]:
    extras = [line for lines in EXTRAS.values() for line in lines]
    return _requirements(PROJECT["dependencies"] + extras)


def _pin(requirement: Requirement) -> Version:
    """The one version that a requirement allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator in ("==", "==="), f"{requirement} is no exact pin"
    assert not specifier.version.endswith("*"), f"{requirement} is no exact pin"
    return Version(specifier.version)


def _constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(set(names)) == len(names), "constraints.txt names a package twice"
    return dict(zip(names, map(_pin, pins), strict=True))


def _extras_of(extra: str) -> set[str]:
    """The extras that an extra brings, itself included."""
    found = {extra}
    for requirement in map(Requirement, EXTRAS[extra]):
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            found = found.union(*map(_extras_of, requirement.extras))
    return found


def _environment() -> tuple[list[str], list[str]]:
    """The conda part and the pip part of environment.yml."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [item for item in dependencies if isinstance(item, str)]
    (pip,) = [item["pip"] for item in dependencies if isinstance(item, dict)]
    return conda, pip


def _dry_run(target: str) -> str:
    """What `make TARGET` would run on a fresh machine."""
    command = ["make", "-n", "VENV=absent", "FULL_VENV=absent-full", "PYTHON=python3", target]
    # Under `make test` the outer make's own flags would reach the inner one.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    env.pop("ARGS", None)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\\\n", "")


def test_constraints_pin_every_direct_dependency_and_nothing_else() -> None:
    assert set(_constraints()) == {canonicalize_name(r.name) for r in _direct()}


@pytest.mark.parametrize("requirement", _direct(), ids=str)
def test_constraint_satisfies_the_bound(requirement: Requirement) -> None:
    pin = _constraints()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin, prereleases=True)
    assert str(requirement.specifier), f"{requirement} has no lower bound"


def test_full_brings_every_extra() -> None:
    assert _extras_of("full") == set(EXTRAS)


@pytest.mark.parametrize("extra", ["vision", "audio"])
def test_torch_companions_are_pinned_and_optional(extra: str) -> None:
    for requirement in _requirements(EXTRAS[extra]):
        assert _pin(requirement) == _constraints()[canonicalize_name(requirement.name)]
    optional = {canonicalize_name(r.name) for r in _requirements(EXTRAS[extra])}
    everyday = _requirements(PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["dev"])
    assert not optional & {canonicalize_name(r.name) for r in everyday}
    assert extra not in _extras_of("test") | _extras_of("dev")


def test_environment_leaves_all_but_python_to_pip() -> None:
    conda, _ = _environment()
    python, pip = conda
    assert pip == "pip"
    name, version = python.split("=")
    assert name == "python"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_environment_agrees_with_pyproject_and_constraints() -> None:
    _, lines = _environment()
    assert lines[0] == "-c constraints.txt"
    assert lines[-1] == "-e .[full]"
    pins = {canonicalize_name(r.name): _pin(r) for r in _requirements(lines[1:-1])}
    assert set(pins) == NAMED
    constraints = _constraints()
    assert pins == {name: constraints[name] for name in pins}
    assert {canonicalize_name(r.name) for r in _direct()} >= NAMED


@pytest.mark.parametrize("target", ["setup", "test", "test-full"])
def test_makefile_installs_on_the_constraints(target: str) -> None:
    installs = [line for line in _dry_run(target).splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line and " -e " in line for line in installs)


def test_makefile_demo_sets_up_and_runs_the_demo() -> None:
    lines = _dry_run("demo").strip().splitlines()
    assert any("pip install" in line for line in lines[:-1])
    assert lines[-1].split() == ["absent/bin/mlass", "demo"]


def test_makefile_test_full_takes_the_torch_that_its_companions_match() -> None:
    printed = _dry_run("test-full")
    _, lines = _environment()
    (torch,) = [line for line in lines if line.startswith("torch=")]
    assert f'"{torch}"' in printed, "test-full and environment.yml take different builds of torch"
    assert '".[full]"' in printed
    assert re.search(r'pytest .*-m ""', printed), "the tests marked `full` would be left out"


def test_ci_runs_every_check() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    steps = re.search(r"for step in (.*); do", script.read_text())
    assert steps is not None
    assert steps.group(1).split() == ["test", "notebooks", "docs", "lint", "types"]


def test_import_leaves_heavy_libraries_alone() -> None:
    heavy = [
        *("torchvision", "torchaudio", "pgmpy", "matplotlib", "lightning", "transformers"),
        *("pyro", "sklearn", "torchmetrics"),
    ]
    code = (
        "import json, sys, mlass_ppl\n"
        f"print(json.dumps([mlass_ppl.__file__, [m for m in {heavy!r} if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    file, loaded = json.loads(done.stdout)
    assert file is not None, "mlass_ppl was imported as a bare folder, not as the package"
    assert loaded == []


def test_wheel_carries_the_models_and_an_editable_install_no_copy(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    kinds = {".json", ".md", ".py", ".safetensors"}
    shipped = {
        f"mlass_ppl/_models/{path.relative_to(ROOT / 'models').as_posix()}"
        for path in (ROOT / "models").rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts
    }
    assert shipped, "models/ holds no bundle and no program"
    archives = {}
    for version in ("standard", "editable"):  # the two share one file name
        builder = wheel.WheelBuilder(str(ROOT))
        (path,) = builder.build(directory=str(tmp_path / version), versions=[version])
        with zipfile.ZipFile(path) as archive:
            archives[version] = set(archive.namelist())
    assert {"mlass_ppl/__init__.py", *shipped} <= archives["standard"]
    folders = {name.split("/")[0] for name in archives["standard"]}
    assert len(folders) == 2, f"more than the package and its metadata: {folders}"
    assert not [name for name in archives["editable"] if "_models" in name]
