"""Every check of `make test` shown failing once: a sound lesson is broken in one place, and that place is named."""

import os
import re
import shutil
import socket
import subprocess
import sys

import nbformat
import nbval.kernel
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests import conftest
from tests.conftest import REFUSAL
from tools import build, colab, execute, lessons, myst, notebooks

ROOT = notebooks.ROOT
NAME = "lessons/1_sample/1_1_one.ipynb"
EXERCISE = "```{{exercise}}\n:label: ex-{0}\nTry {0}.\n```\n\n```{{solution}} ex-{0}\n:class: dropdown\nSo.\n```"
QUESTION = "# 1.1 One\n\nIs one one?\n\n*You will be able to* count. *Before this*: nothing."
PICTURE = "if False:\n    slider([1], draw, 'x', str, alt)\n    figures.show(figure, alt='1 line')"
END = "## Summary\n\nOne.\n\n## Further reading\n\nNone."
THEOREM = "```{prf:theorem} One\n:label: thm-one\nOne is {glue:text}`one`.\n```"


def text_output(text, count):
    return {"outputs": [new_output("stream", name="stdout", text=text)], "execution_count": count}


def sound():
    """A lesson in which nothing is amiss."""
    cells = [
        new_markdown_cell(QUESTION, id="question"),
        new_code_cell("from myst_nb import glue\n\nglue('one', 1, display=False)", id="glue-one"),
        new_markdown_cell(THEOREM, id="theorem"),
        new_code_cell("print(1, 'minimum')", id="count", **text_output("1 minimum\n", 2)),
        new_code_cell(PICTURE, id="picture"),
    ]
    for number in (1, 2, 3):
        cells.append(new_markdown_cell(EXERCISE.format(number), id=f"exercise-{number}"))
        cells.append(new_code_cell("assert 1 == 1", id=f"solution-{number}", metadata={"tags": ["hide-input"]}))
    cells.append(new_markdown_cell(END, id="end"))
    return notebooks.normalise(new_notebook(cells=cells))


def cell(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def store(notebook, folder, name=NAME):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebooks.text(notebook), encoding="utf-8")
    return path


def problems(notebook, folder, executed=None, claimed=("thm-one",)):
    return lessons.problems(store(notebook, folder), folder, set(claimed), executed)


# --- The form of a lesson ---------------------------------------------------------------------------------------------


def test_a_sound_lesson_passes(tmp_path):
    assert problems(sound(), tmp_path) == []


def source(name, text):
    """A change: the source of one cell."""
    return lambda notebook: cell(notebook, name).update(source=text)


def without(name, text):
    return lambda notebook: cell(notebook, name).update(source=cell(notebook, name).source.replace(text, ""))


def image(notebook):
    picture = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    cell(notebook, "count").update(outputs=[picture], execution_count=2)


def attachment(notebook):
    cell(notebook, "theorem")["attachments"] = {"a.png": {"image/png": "iVBORw0KGgo="}}


def odd_id(notebook):
    cell(notebook, "count").id = "0a1b2c3d"


def scrolled(notebook):
    cell(notebook, "count").metadata["scrolled"] = True


BROKEN = {
    "a stored image": (image, "count", "outputs is out of form"),
    "a stored attachment": (attachment, "theorem", "a stored image"),
    "a stored number without output": (
        lambda notebook: cell(notebook, "picture").update(execution_count=7),
        "picture",
        "execution_count is out of form",
    ),
    "an editor's metadata": (scrolled, "count", "metadata is out of form"),
    "an unreadable id": (odd_id, "0a1b2c3d", "needs an id"),
    "a raw .cuda()": (source("glue-one", "x.cuda()"), "glue-one", "names a device"),
    "a raw device": (source("glue-one", "x.to('cuda:0')"), "glue-one", "names a device"),
    "a bare plot": (source("glue-one", "import matplotlib.pyplot as plt"), "glue-one", "draws past the library"),
    "a figure without text": (source("glue-one", "figures.show(figure)"), "glue-one", "without alternative text"),
    "a slider without text": (source("glue-one", "slider([1], draw, 'x', str)"), "glue-one", "without alternative"),
    "an image without text": (source("end", END + "\n![](a.svg)"), "end", "without alternative text"),
    "a figure block without text": (source("end", END + "\n```{figure} a.svg\nA.\n```"), "end", "without alternative"),
    "an open role": (source("end", END + "{glue:text}`one:.0f}"), "end", "a role that is not closed: {glue:text}`"),
    "a long cell": (source("glue-one", "x = 1\n" * 26), "glue-one", "26 lines of code"),
    "a wide line": (source("glue-one", "one = 1 #" + 76 * "!"), "glue-one", "85 characters, and the page shows 84"),
    "filler": (source("end", END + " Clearly."), "end", "filler: “Clearly”"),
    "a value that is not glued": (source("glue-one", "one = 1"), "theorem", "shows the value 'one'"),
    "a theorem without a label": (without("theorem", ":label: thm-one\n"), "theorem", "a theorem without a label"),
    "a theorem without a claim": (without("theorem", "-one"), "theorem", "the theorem 'thm' has no row in"),
    "no question": (without("question", "?"), "whole notebook", "needs a question"),
    "no title": (without("question", "# "), "whole notebook", "needs a title"),
    "no objectives": (without("question", "You will be able to"), "whole notebook", "“You will be able to”"),
    "no prerequisites": (without("question", "Before this"), "whole notebook", "“Before this”"),
    "no slider": (source("picture", "1"), "whole notebook", "needs a slider"),
    "no summary": (without("end", "Summary"), "whole notebook", "needs a summary"),
    "no further reading": (without("end", "Further reading"), "whole notebook", "needs further reading"),
    "two exercises": (source("exercise-3", "Nothing."), "whole notebook", "2 exercises, and needs 3"),
    "no solution": (without("exercise-2", "{solution}"), "exercise-2", "an exercise without a solution"),
    "an unchecked solution": (source("solution-2", "1"), "exercise-2", "an exercise whose solution no cell asserts"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_lesson_is_named_with_its_cell(what, tmp_path):
    change, name, said = BROKEN[what]
    notebook = sound()
    change(notebook)
    found = problems(notebook, tmp_path)
    assert any(line.startswith(f"{NAME}, cell {name}: ") and said in line for line in found), found


def test_what_only_a_run_shows(tmp_path):
    notebook, run = sound(), sound()
    shown = cell(run, "picture")
    for data, said in (
        ({"image/png": "iVBORw0KGgo="}, "no alternative text"),
        ({"text/html": '<svg role="img">'}, "without an alternative text that states its numbers"),
        ({"text/html": '<svg role="img" aria-label="a line">'}, "without an alternative text that states its numbers"),
    ):
        shown.outputs = [new_output("display_data", data=data)]
        (found,) = problems(notebook, tmp_path, run)
        assert found.startswith(f"{NAME}, cell picture: ") and said in found
    shown.outputs = [new_output("display_data", data={"text/html": '<svg role="img" aria-label="1 line">'})]
    assert problems(notebook, tmp_path, run) == []
    shown.outputs = [new_output("stream", name="stdout", text="new\n")]
    assert problems(notebook, tmp_path, run) == [
        f"{NAME}, cell picture: prints text that is not stored, so nbval can't compare it; "
        "run: python tools/notebooks.py --run"
    ]
    shown.outputs.append(new_output("display_data", data={"text/html": "<b>holds</b>"}))
    (found,) = problems(notebook, tmp_path, run)
    assert found.startswith(f"{NAME}, cell picture: ") and "print in a cell of its own" in found
    cell(notebook, "picture").metadata["tags"] = shown.metadata["tags"] = [notebooks.NOT_COMPARED]
    assert problems(notebook, tmp_path, run) == []


@pytest.mark.parametrize("tag", sorted(lessons.HIDDEN))
def test_folded_code_may_be_wide(tag, tmp_path):
    notebook = sound()
    source("glue-one", cell(notebook, "glue-one").source + "  #" + 90 * "!")(notebook)
    assert len(problems(notebook, tmp_path)) == 1
    cell(notebook, "glue-one").metadata["tags"] = [tag]
    assert problems(notebook, tmp_path) == []


def test_plain_words_are_no_filler():
    for text in ("a simply connected set", "`clearly` the name", "$obviously$"):
        assert not list(lessons.text_problems(new_markdown_cell(text)))


# --- The stored form --------------------------------------------------------------------------------------------------


def test_normal_form_is_stable_and_keeps_text_only(tmp_path):
    notebook = sound()
    shown = cell(notebook, "count")
    shown.outputs = [new_output("stream", name="stdout", text=text) for text in ("1 ", "minimum\n")]
    image(untidy := nbformat.from_dict(notebook))
    ignored = nbformat.from_dict(notebook)
    cell(ignored, "count").metadata["tags"] = ["nbval-ignore-output"]
    once = notebooks.normalise(notebook)
    assert cell(once, "count").outputs == [new_output("stream", name="stdout", text="1 minimum\n")]
    assert cell(once, "count").execution_count == 2
    assert notebooks.text(notebooks.normalise(once)) == notebooks.text(once)
    for other in (untidy, ignored):
        stripped = cell(notebooks.normalise(other), "count")
        assert (stripped.outputs, stripped.execution_count) == ([], None)


def test_the_command_checks_writes_and_runs(tmp_path, capsys):
    notebook = sound()
    cell(notebook, "count").update(source="print(2, 'minima')", outputs=[], execution_count=9)
    path = store(notebook, tmp_path)
    assert notebooks.main(["--check", str(path)]) == 1
    assert "1_1_one.ipynb, cell count: execution_count is out of form" in capsys.readouterr().out
    assert notebooks.main(["--write", str(path)]) == 0
    assert notebooks.main(["--check", str(path)]) == 0
    assert notebooks.main(["--run", str(path)]) == 0
    assert cell(notebooks.read(path), "count").outputs[0].text == "2 minima\n"
    first = path.read_bytes()
    assert notebooks.main(["--run", str(path)]) == 0
    assert path.read_bytes() == first and b"unchanged" not in first
    assert notebooks.main(["--check", str(path)]) == 0


def test_every_notebook_is_found_except_built_and_hidden_ones(tmp_path):
    for name in ("a/b.ipynb", "c.ipynb", "_build/d.ipynb", ".venv/e.ipynb", "a/.ipynb_checkpoints/f.ipynb"):
        store(sound(), tmp_path, name)
    assert [path.relative_to(tmp_path).as_posix() for path in notebooks.find(tmp_path)] == ["a/b.ipynb", "c.ipynb"]


# --- Execution --------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path):
    """A folder with what the cache's key looks at."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("one = 1\n", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("a==1\n", encoding="utf-8")
    return tmp_path


def plain(*sources):
    cells = [new_code_cell(text, id=f"cell-{i}") for i, text in enumerate(sources)]
    return notebooks.normalise(new_notebook(cells=cells))


def test_the_cache_sees_the_code_the_library_and_the_settings(course, monkeypatch, capsys):
    path, cache = store(plain("import sys", "print(1)"), course), course / "cache"

    def executed():
        count, failures = execute.run([path], cache, course)
        assert failures == []
        return count

    assert execute.executed(path, cache) is None
    assert executed() == 1
    line = capsys.readouterr().out
    assert NAME in line and " s, " in line and " MB at most" in line
    assert execute.executed(path, cache).cells[1].outputs[0].text == "1\n"
    assert execute.record(path, cache)["megabytes"] > 10
    assert executed() == 0
    assert f"{NAME}: cached" in capsys.readouterr().out
    (course / "lib" / "a.py").write_text("one = 2\n", encoding="utf-8")
    assert (executed(), executed()) == (1, 0)
    monkeypatch.setenv("LOSSLAB_SCALE", "full")
    assert (executed(), executed()) == (1, 0)
    store(plain("import sys", "print(2)"), course)
    assert (executed(), executed()) == (1, 0)


def test_a_notebook_that_raises_is_named_and_the_others_are_run(course):
    bad = store(plain("1", "1 / 0"), course, "lessons/bad.ipynb")
    good = store(plain("import os", "os.getcwd()"), course, "lessons/good.ipynb")
    for _ in range(2):  # a failure is not cached
        _, failures = execute.run([bad, good], course / "cache", course)
        assert len(failures) == 1
        assert failures[0].startswith("lessons/bad.ipynb, cell cell-1: ") and "ZeroDivisionError" in failures[0]
        assert execute.executed(bad, course / "cache") is None
    shown = execute.executed(good, course / "cache").cells[1].outputs[0].data["text/plain"]
    assert shown == repr(str(good.parent)), "a notebook runs in its own folder"


@pytest.mark.parametrize("blocked", [1, 3])
def test_a_kernel_that_finds_its_port_taken_is_started_again(blocked, course, monkeypatch):
    made = []
    with socket.create_server(("127.0.0.1", 0)) as taken:

        class Client(execute.NotebookClient):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                made.append(self)

            def create_kernel_manager(self):
                manager = super().create_kernel_manager()
                manager.cache_ports = False  # else it would choose anew
                manager.shell_port = taken.getsockname()[1] if len(made) <= blocked else 0  # 0: any free one
                return manager

        monkeypatch.setattr(execute, "NotebookClient", Client)
        path = store(plain("1 + 1"), course)
        if blocked == 1:
            result = execute.execute(path)
            assert result.error == "" and result.notebook.cells[0].outputs[0].data["text/plain"] == "2"
        else:
            with pytest.raises(RuntimeError, match="before replying"):
                execute.execute(path)
    assert len(made) == min(blocked + 1, 3)


def test_the_budget_holds_for_cached_notebooks_too(course, monkeypatch):
    path = store(plain("block = bytearray(200_000_000)", "del block"), course)
    monkeypatch.setattr(execute, "MEGABYTES", 150)
    for count in (1, 0):
        executed, failures = execute.run([path], course / "cache", course)
        assert executed == count and len(failures) == 1
        assert failures[0].startswith(f"{NAME}: needed") and "and may need 150 MB" in failures[0]
    monkeypatch.setattr(execute, "MEGABYTES", 1000)
    assert execute.run([path], course / "cache", course) == (0, [])
    monkeypatch.setattr(execute, "SECONDS", 0)
    assert "of processor time" in execute.run([path], course / "cache", course)[1][0]


def test_the_table_of_contents_is_read_to_its_last_level(tmp_path):
    text = "root: a\nparts:\n- chapters:\n  - file: b\n    sections:\n    - file: c.ipynb\n  - file: page\n"
    (tmp_path / "_toc.yml").write_text(text, encoding="utf-8")
    for name in "abc":
        store(sound(), tmp_path, f"{name}.ipynb")
    assert [path.stem for path in execute.files_of(tmp_path / "_toc.yml")] == ["a", "b", "c"]


def test_the_site_is_built_again_after_any_change(course, monkeypatch):
    path = store(sound(), course)
    before = build.fingerprint(course)
    assert build.fingerprint(course) == before
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert build.fingerprint(course) != before
    before = build.fingerprint(course)
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/else")
    assert build.fingerprint(course) != before


def test_a_warning_of_sphinx_names_the_cell(tmp_path):
    path = store(sound(), tmp_path)
    assert build.with_cell(f"{path}:30002: WARNING: x") == f"{path}, cell theorem, line 2: WARNING: x"
    assert build.with_cell(f"{path}:990002: WARNING: x") == f"{path}:990002: WARNING: x"


# --- pytest's part: nbval and the claims ------------------------------------------------------------------------------


def pytest_run(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", *map(str, arguments)]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    inherited["PYTHONPATH"] = str(ROOT)  # for a copy of conftest.py elsewhere
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=inherited)
    return answer.returncode, answer.stdout + answer.stderr


def test_nbval_starts_a_kernel_again(monkeypatch):
    tried = []

    def fails_once(kernel_name):
        tried.append(kernel_name)
        if len(tried) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return "manager", "client"

    monkeypatch.setattr(conftest, "start", fails_once)
    assert nbval.kernel.start_new_kernel(kernel_name="python3") == ("manager", "client")
    assert tried == ["python3", "python3"]


def test_nbval_names_notebook_and_cell(tmp_path):
    options = ["--nbval", "--nbval-current-env", "-p", "tests.conftest"]
    code, answer = pytest_run(*options, store(sound(), tmp_path))
    assert code == 0 and "6 passed" in answer, answer
    notebook = sound()
    cell(notebook, "count").source = "print(2, 'minima')"
    cell(notebook, "picture").outputs = [new_output("stream", text="1")]
    cell(notebook, "solution-1").source = "1 / 0"
    code, answer = pytest_run(*options, store(notebook, tmp_path))
    assert code == 1 and "3 failed, 3 passed" in answer, answer
    for name, said in (("count", "outputs differ"), ("picture", "Unrun"), ("solution-1", "ZeroDivisionError")):
        report = re.search(rf"_ \S*1_1_one\.ipynb::{name} _+\n(.*?)\n[_=]{{10}}", answer, re.DOTALL)
        assert report and said in report[1], answer


SKIPPED = """
import pytest

@pytest.mark.skip(reason="no time")
def test_marked(): pass

def test_inside(): pytest.skip("no time")

@pytest.mark.xfail
def test_expected(): assert False

@pytest.mark.xfail
def test_unexpected(): assert True

def test_passes(): pass
"""


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "in parallel"])
def test_a_skipped_claim_is_a_failure(options, tmp_path):
    for folder in ("claims", "other"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / f"test_{folder}.py").write_text(SKIPPED, encoding="utf-8")
    whole = "import pytest\n\npytest.importorskip('no_such_module')\n"
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n", encoding="utf-8")
    code, answer = pytest_run("tests", *options, cwd=tmp_path)
    counts = "3 failed, 2 passed, 2 skipped, 1 xfailed, 1 xpassed, 1 error"  # elsewhere a skip stays a skip
    assert code == 1 and counts in answer and answer.count(REFUSAL) >= 4, answer
    (tmp_path / "tests" / "claims" / "test_claims.py").write_text(whole, encoding="utf-8")
    code, answer = pytest_run("tests/claims", *options, cwd=tmp_path)
    assert code != 0 and REFUSAL in answer, answer


# --- Copies for Colab -------------------------------------------------------------------------------------------------

DIALECT = """# 1.1 One

Why {cite}`ada2020`? As {cite:t}`ada2020` says in {doc}`/book/page`, [](#here). By {eq}`eq-one` and {prf:ref}`thm-one`:
{glue:text}`one:.2f` or {glue:text}`two`. See {numref}`Theorem %s <thm-one>`, [the page](../../book/page.md).

(here)=
## A heading

% a comment

$$ x = 1 $$ (eq-one)

````{exercise} Try
:label: ex-one
Do it.
```{hint}
:class: dropdown
With `x`.
```
````

```{solution} ex-one
:class: dropdown
Done.
```

:::{margin} Aside
Small.
:::

:::{prf:proof}
Because {math}`1 = 1`.
:::

```{list-table} Things
* - a
  - b
* - c
  - d
```

Word
: its meaning

```python
%pip list
```
"""
PLAIN = """# 1.1 One

Why [Lovelace, 2020]? As Lovelace (2020) says in *A page*, A heading. By (1) and Theorem 1.1.1:
1.00 or (the value of `two`, computed in this notebook). See Theorem 1.1.1, the page.

## A heading

$$ x = 1 \\tag{1}$$

> **Exercise 1.1.1 (Try)**
>
> Do it.
>
> <details>
> <summary>Hint</summary>
>
> With `x`.
>
> </details>

<details>
<summary>Solution to Exercise 1.1.1</summary>

Done.

</details>

> **Aside**
>
> Small.

*Proof.* Because $1 = 1$. ∎

**Things**

| a | b |
| --- | --- |
| c | d |

**Word**: its meaning

```python
%pip list
```"""


@pytest.fixture
def small_book(tmp_path):
    notebook = sound()
    cell(notebook, "question").source = DIALECT
    path = store(notebook, tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.md").write_text("# A page\n", encoding="utf-8")
    source = "@article{ada2020, author={Lovelace, Ada}, title={Notes}, journal={Memoirs}, year={2020}}"
    (tmp_path / "book" / "references.bib").write_text(source, encoding="utf-8")
    return path


def copied(path, executed=None):
    book = colab.Book(path.parents[2], [path])
    return colab.convert(path, book, "https://example.org/a/b", "0123abc", executed)


def test_dialect_becomes_plain_markdown(small_book):
    run = notebooks.read(small_book)
    glued = new_output("display_data", data={"application/papermill.record/text/plain": "1"})
    glued.metadata = nbformat.from_dict({"scrapbook": {"name": "one"}})
    cell(run, "glue-one").outputs = [glued]
    copy = copied(small_book, run)
    assert copy.cells[0].source.endswith('%pip install --quiet "losslab[glue] @ git+https://example.org/a/b@0123abc"')
    assert cell(copy, "question").source == PLAIN
    assert cell(copy, "theorem").source == "> **Theorem 1.1.1 (One).**\n>\n> One is 1."
    assert cell(copy, "solution-1").source.startswith("#@title")
    assert cell(copy, "solution-1").metadata.cellView == "form"
    assert cell(copy, "references").source == "## References\n\n- Lovelace Ada. *Notes*. Memoirs. 2020"
    nbformat.validate(copy)


@pytest.mark.parametrize(
    "text",
    ["{odd}`role`", "```{odd}\nx\n```", "{prf:ref}`thm-none`", "{cite}`nobody`", "{eq}`eq-none`", "[](#nowhere)"],
)
def test_what_has_no_plain_form_is_named(text, small_book):
    notebook = notebooks.read(small_book)
    cell(notebook, "end").source = text
    store(notebook, small_book.parents[2])
    with pytest.raises(colab.Unknown, match=f"{NAME}, cell end: "):
        copied(small_book)


def test_blocks_inside_blocks_are_found():
    names = [block.name for block in myst.directives(DIALECT)]
    assert names == ["exercise", "hint", "solution", "margin", "prf:proof", "list-table"]
    assert [block.name for block in myst.directives("```python\n```{x}\n")] == []
    assert next(myst.directives("```{figure} a\n---\nalt: b\n---\nc\n```")).options == {"alt": "b"}


def test_the_tools_are_where_the_makefile_says():
    words = (ROOT / "Makefile").read_text(encoding="utf-8").split()
    assert all((ROOT / word).exists() for word in words if re.fullmatch(r"tools/\w+\.py", word))
