"""The code's style: ruff, with the rules of pyproject.toml, over library, tools, tests and notebooks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def ruff(*paths):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_ruff():
    answer = ruff(".")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_ruff_reads_notebooks_too():
    assert {"lib/losslab/__init__.py", "tools/build.py"} <= shown_files()
    assert any(name.endswith(".ipynb") for name in shown_files())


def shown_files():
    command = [sys.executable, "-m", "ruff", "check", "--show-files"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {Path(line).relative_to(ROOT).as_posix() for line in answer.stdout.split()}


def test_an_unused_name_is_found(tmp_path):
    (tmp_path / "odd.py").write_text("import os\n", encoding="utf-8")
    answer = ruff("--isolated", tmp_path / "odd.py")
    assert answer.returncode == 1 and "odd.py:1:8" in answer.stdout
