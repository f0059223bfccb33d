"""The workflows are what GitHub accepts, run what a contributor runs, and say why each step stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def schema_check(path):
    """check-jsonschema with the schema that it ships: nothing is fetched."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def unexplained(text):
    """The first lines of the steps that have no comment above them."""
    lines = text.split("\n")
    steps = [i for i, line in enumerate(lines) if re.match(r"      - \w", line)]
    return [lines[i].strip() for i in steps if not lines[i - 1].strip().startswith("#")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path):
    answer = schema_check(path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    text = path.read_text(encoding="utf-8")
    assert text.count("      - ") >= 1 and unexplained(text) == []
    assert all("timeout-minutes" in job or "deploy-pages" in str(job) for job in yaml.safe_load(text)["jobs"].values())


def test_a_broken_workflow_is_refused(tmp_path):
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    broken = tmp_path / "test.yml"
    broken.write_text(text.replace("runs-on:", "runs-of:"), encoding="utf-8")
    assert schema_check(broken).returncode != 0
    assert unexplained("    steps:\n      - run: make\n") == ["- run: make"]


def test_they_run_what_a_contributor_runs():
    runs = {path.name: re.findall(r"- run: (.*)", path.read_text(encoding="utf-8")) for path in WORKFLOWS}
    assert runs["test.yml"] == [".ci/run"]
    assert "make book" in runs["book.yml"]
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"
    assert "CI=true make test" in script.read_text(encoding="utf-8")
    assert subprocess.run(["sh", "-n", str(script)]).returncode == 0


def test_the_makefile_knows_its_commands():
    answer = subprocess.run(["make", "--dry-run", "help", "serve", "clean"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(f"make {command} " in shown for command in ("help", "book", "test", "serve", "clean"))
