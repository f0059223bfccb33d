"""Build the site into _build/html from the executed notebooks, and fail on every warning.

Where nothing has changed since the last good build, nothing is built. Where anything has, everything is built anew:
Sphinx repeats no warning of a page that it does not read again, and numbers and links on one page depend on others.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from jupyter_cache import get_cache

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
INPUTS = ("_config.yml", "_toc.yml", "constraints.txt", "LICENSE", "book", "lessons", "assignments", "lib", "tools")
# The launch buttons follow the repository that the book is built from, and the footer names the commit.
SETTINGS = ("LOSSLAB_SCALE", "LOSSLAB_DEVICE")
SETTINGS += ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_REF_NAME", "GITHUB_SHA")


def fingerprint(root=ROOT):
    """A hash of everything that the site is made from."""
    parts = [f"{name}={os.environ.get(name, '')}" for name in SETTINGS]
    for command in ("remote get-url origin", "rev-parse HEAD"):
        try:
            parts.append(subprocess.run(["git", "-C", root, *command.split()], capture_output=True, text=True).stdout)
        except OSError:  # no git on this machine
            parts.append("")
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(path for name in INPUTS for path in [root / name, *(root / name).rglob("*")]):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def with_cell(line):
    """Sphinx's place in a notebook, "x.ipynb:50009" for line 9 of the fifth cell, with the cell's id instead."""

    def named(match):
        cells = json.loads(Path(match[1]).read_text(encoding="utf-8"))["cells"]
        cell, number = divmod(int(match[2]), 10000)
        return f"{match[1]}, cell {cells[cell - 1].get('id')}, line {number}" if 0 < cell <= len(cells) else match[0]

    return re.sub(r"(\S+\.ipynb):(\d{5,})", named, line)


def jupyter_book():
    """Run it and show what it says. Returns its exit code and the warnings, which its traceback would hide."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", ROOT, "-W", "-n", "--keep-going"]
    complaints = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line):
                complaints.append(with_cell(re.sub(r"\x1b\[[0-9;]*m", "", line.strip())))
    return process.returncode, list(dict.fromkeys(complaints))


def main():
    page, mark = BUILD / "html" / "index.html", BUILD / ".fingerprint"
    now = fingerprint()
    if page.exists() and mark.exists() and mark.read_text() == now:
        print(f"The site is up to date. Open {page.relative_to(ROOT)}")
        return 0
    mark.unlink(missing_ok=True)
    for folder in ("html", ".doctrees"):
        shutil.rmtree(BUILD / folder, ignore_errors=True)
    cache = get_cache(str(BUILD / ".jupyter_cache"))
    before = {record.hashkey for record in cache.list_cache_records()}
    code, complaints = jupyter_book()
    if code:
        print("\nFAILED: the site has warnings or errors:", *(complaints or ["see above"]), sep="\n", file=sys.stderr)
        return code
    # Sphinx would run a notebook that it does not find in the cache: one at a time, with no budget and no line printed.
    if {record.hashkey for record in cache.list_cache_records()} != before:
        print("\nFAILED: Sphinx executed a notebook itself; tools/execute.py missed it", file=sys.stderr)
        return 1
    mark.write_text(now)
    print(f"\nThe site is built. Open {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
