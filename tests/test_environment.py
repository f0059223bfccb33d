"""Binder's environment, the package's ranges and the pinned versions say the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
# What conda calls differently.
CONDA_NAMES = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
CONDA_OWN = {"python", "pip"}


def pins(text):
    """{name: version} of constraints.txt."""
    lines = [line.split("#")[0].strip() for line in text.split("\n")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.!]+)", line) for line in lines if line]
    assert all(found), "constraints.txt holds exact versions only: no -e line, no address, no suffix such as +cpu"
    return {canonicalize_name(match[1]): match[2] for match in found}


def needed(project, extra):
    """The requirements of the package with an extra, extras of extras resolved: {name: Requirement}."""
    optional, found = project["optional-dependencies"], {}
    todo = [*project["dependencies"], *optional[extra]]
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name == project["name"]:
            todo += [line for name in requirement.extras for line in optional[name]]
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def drift(environment, project, constraints):
    """One line for every disagreement; all three as text."""
    environment, project, pinned = yaml.safe_load(environment), tomllib.loads(project)["project"], pins(constraints)
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    pip = next(line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    wanted, found, covered = needed(project, "lessons"), [], set()
    if "python=3.11" not in conda:
        found.append("environment.yml: python=3.11 is missing; Binder ignores a range")
    if not Requirement(f"python{project['requires-python']}").specifier.contains("3.11"):
        found.append("pyproject.toml: requires-python leaves out environment.yml's Python")
    if "-e .[lessons]" not in pip:
        found.append("environment.yml: the package itself is missing (-e .[lessons])")
    for line in conda:
        name, specifier = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        name = CONDA_NAMES.get(name, name)
        if name in CONDA_OWN:
            continue
        covered.add(name)
        if name not in wanted or Requirement(f"x{specifier}").specifier != wanted[name].specifier:
            found.append(f"environment.yml: {line} is not the range of pyproject.toml ({wanted.get(name)})")
    for line in pip:
        if line.startswith("-"):
            continue
        name, _, version = line.partition("==")
        covered.add(canonicalize_name(name))
        if canonicalize_name(name) not in wanted:
            found.append(f"environment.yml: {line} is no dependency of losslab[lessons]")
        if pinned.get(canonicalize_name(name)) != version:
            found.append(f"environment.yml: {line} is not the version of constraints.txt")
    found += [f"environment.yml: {wanted[name]} is missing" for name in sorted(set(wanted) - covered)]
    if "torch" in (canonicalize_name(Requirement(line).name) for line in pip if not line.startswith("-")):
        found.append("environment.yml: pip must not install torch, its build brings GPU code; conda's pytorch-cpu does")
    for extra in project["optional-dependencies"]:
        for name, requirement in needed(project, extra).items():
            if name not in pinned:
                found.append(f"constraints.txt: {name} (extra {extra}) is missing")
            elif not requirement.specifier.contains(Version(pinned[name])):
                found.append(f"constraints.txt: {name}=={pinned[name]} is outside {requirement} of pyproject.toml")
    return found


FILES = [(ROOT / name).read_text(encoding="utf-8") for name in ("environment.yml", "pyproject.toml", "constraints.txt")]


def test_the_three_agree():
    assert not (found := drift(*FILES)), "\n".join(found)


def test_each_drift_is_seen():
    """One change to one of the three at a time."""

    def changed(which, old, new):
        files = list(FILES)
        assert re.search(old, files[which]), old
        files[which] = re.sub(old, new, files[which])
        return "\n".join(drift(*files))

    environment, project, constraints = range(3)
    assert "myst-nb==0.1 is not the version" in changed(environment, r"myst-nb==[\d.]+", "myst-nb==0.1")
    assert "is not the version of constraints.txt" in changed(constraints, r"\nnumpy==[\d.]+", "\nnumpy==2.0.0")
    assert "scipy<2,>=1.13 is missing" in changed(environment, r"- scipy==.*", "")
    assert "is not the range of pyproject.toml" in changed(environment, r"pytorch-cpu>=2\.6", "pytorch-cpu>=2.7")
    assert "is not the range of pyproject.toml" in changed(project, r'"torch>=2\.6', '"torch>=2.7')
    assert "python=3.11 is missing" in changed(environment, "python=3.11", "python>=3.11")
    assert "the package itself is missing" in changed(environment, r"- -e \.\[lessons\]", "")
    assert "pip must not install torch" in changed(environment, "- -e", "- torch==2.13.0\n      - -e")
    assert "is no dependency" in changed(environment, "- -e", "- pandas==2.0\n      - -e")
    assert "is outside" in changed(project, r"numpy>=2,<3", "numpy>=3,<4")
    assert "nbval (extra test) is missing" in changed(constraints, r"\nnbval==[\d.]+", "")


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import distributions

    pinned = pins(FILES[2])
    here = {canonicalize_name(found.metadata["Name"]): found.version.split("+")[0] for found in distributions()}
    ours = sorted(set(here) & set(pinned) - {"setuptools", "wheel"})  # those two come with Python itself
    wrong = {name: here[name] for name in ours if here[name] != pinned[name]}
    assert not wrong, f"these versions are not those of constraints.txt (make distclean, then make book): {wrong}"


def test_repo2docker_takes_the_environment():
    """Its dry run: does Binder see a conda environment here? It validates no package."""
    command = [str(Path(sys.executable).parent / "jupyter-repo2docker"), "--no-build", "--debug", str(ROOT)]
    answer = subprocess.run(command, capture_output=True, text=True)
    said = answer.stdout + answer.stderr
    assert answer.returncode == 0, said
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in said
    assert "PythonBuildPack" not in said.replace("CondaBuildPack", "")
