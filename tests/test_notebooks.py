"""The form of every notebook of the repository. The checks themselves are in tools/; test_tools.py breaks each."""

import os

import pytest

from tools import claims, colab, execute, lessons, notebooks

ROOT = notebooks.ROOT
CACHE = ROOT / "_build" / ".jupyter_cache"
NOTEBOOKS = notebooks.find()
LISTED = execute.files_of(ROOT / "_toc.yml")


def name(path):
    return os.path.relpath(path, ROOT)


def executed(path):
    notebook = execute.executed(path, CACHE)
    assert notebook is not None, f"{name(path)} has not been executed as it is now; run: make book"
    return notebook


def test_there_are_lessons_and_the_table_of_contents_lists_them_all():
    assert LISTED
    assert {path for path in NOTEBOOKS if name(path).startswith("lessons/")} <= set(LISTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_form(path):
    claimed = {row["label"] for row in claims.rows()}
    found = lessons.problems(path, ROOT, claimed, executed(path) if path in LISTED else None)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", LISTED, ids=name)
def test_budget(path):
    record = execute.record(path, CACHE)
    assert record, f"{name(path)} has not been executed as it is now; run: make book"
    assert record["processor"] > 0 and record["megabytes"] > 0
    assert not execute.over_budget(record), f"{name(path)}: {execute.over_budget(record)}"


@pytest.mark.parametrize("path", LISTED, ids=name)
def test_the_copy_for_colab_holds_no_dialect(path):
    book = colab.Book(ROOT, LISTED)
    copy = colab.convert(path, book, "https://example.org/owner/name", "0123abc", executed(path))
    assert "losslab[glue] @ git+https://example.org/owner/name@0123abc" in copy.cells[0].source
    original = notebooks.read(path)
    assert [cell.id for cell in copy.cells if cell.id not in ("install-losslab", "references")] == [
        cell.id for cell in original.cells
    ]
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            assert "computed in this notebook)" not in cell.source, f"{name(path)}, cell {cell.id}: a value is missing"


def test_the_command_that_publishes_the_copies(tmp_path):
    colab.main(["--repository", "https://example.org/a/b", "--commit", "0123abc", "--cache", str(CACHE), str(tmp_path)])
    assert sorted(path.relative_to(tmp_path) for path in notebooks.find(tmp_path)) == [
        path.relative_to(ROOT) for path in sorted(LISTED)
    ]


def test_filler_words_in_the_pages():
    for path in sorted((ROOT / "book").glob("*.md")):
        match = lessons.FILLER.search(path.read_text(encoding="utf-8"))
        assert not match, f"{name(path)}: filler: {match[0]}"
