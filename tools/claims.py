"""What has to hold between book/claims.yml, the theorems of the lessons, the tests and the bibliography."""

import re
import subprocess
import sys

import yaml

from tools import lessons, notebooks

FIELDS = {"label", "lesson", "kind", "statement", "source", "checked", "test"}
HOW = ("computed", "sampled", "exact")


def rows(root=notebooks.ROOT):
    return yaml.safe_load((root / "book" / "claims.yml").read_text(encoding="utf-8")) or []


def stated(root=notebooks.ROOT):
    """{label: (lesson, kind, cell id)} for every theorem, proposition, lemma and corollary of the lessons."""
    found = {}
    for path in notebooks.find(root / "lessons"):
        lesson = path.relative_to(root).with_suffix("").as_posix()
        found |= {label: (lesson, kind, cell) for kind, label, cell in lessons.stated(notebooks.read(path))}
    return found


def sources(root=notebooks.ROOT):
    return set(re.findall(r"^@\w+\{\s*([^,\s]+)", (root / "book" / "references.bib").read_text("utf-8"), re.MULTILINE))


def collected(root=notebooks.ROOT):
    """The names of the tests that pytest finds in tests/claims, without their parameters."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/claims"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if answer.returncode not in (0, 5):  # 5: there are none
        raise RuntimeError(f"pytest can't collect tests/claims:\n{answer.stdout}{answer.stderr}")
    return {line.split("[")[0] for line in answer.stdout.split("\n") if "::" in line}


def problems(rows, stated, tests, sources):
    """One line for everything that is amiss; `stated`, `tests` and `sources` as returned by the functions above."""
    found, labels = [], [row.get("label") for row in rows]
    for row in rows:
        name = f"claims.yml, {row.get('label', 'a row without a label')}"
        missing, unknown = FIELDS - {key for key, value in row.items() if value}, set(row) - FIELDS
        if missing or unknown:
            found.append(f"{name}: lacks {sorted(missing)}, does not know {sorted(unknown)}")
            continue
        if labels.count(row["label"]) > 1:
            found.append(f"{name}: stands there twice")
        if row["checked"] not in HOW:
            found.append(f"{name}: checked is {row['checked']!r}, not one of {HOW}")
        if row["test"] not in tests:
            found.append(f"{name}: there is no test {row['test']}")
        cited = [row["source"]] if isinstance(row["source"], str) else row["source"]
        if cited != ["proved here"] and (absent := [key for key in cited if key not in sources]):
            found.append(f"{name}: the sources {absent} are not in references.bib")
        if row["label"] not in stated:
            found.append(f"{name}: no lesson states it")
        elif stated[row["label"]][:2] != (row["lesson"], row["kind"]):
            lesson, kind, cell = stated[row["label"]]
            found.append(f"{name}: is a {kind} of {lesson} (cell {cell}), not a {row['kind']} of {row['lesson']}")
    for label, (lesson, kind, cell) in stated.items():
        if label not in labels:
            found.append(f"{lesson}.ipynb, cell {cell}: the {kind} {label!r} has no row in book/claims.yml")
    return found
