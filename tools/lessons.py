"""The form of a notebook, beyond how it is stored: what `make test` insists on, cell by cell.

`problems(path, ...)` returns one line for everything that is amiss, with the notebook and the cell.
"""

import ast
import re

from tools import myst, notebooks

LINES = 25  # of a code cell, blank ones aside: the idea is visible, the plumbing is in the library
WIDTH = 84  # of a line that the page shows: what fits beside the margin column (book/_static/losslab.css, `pre`)
HIDDEN = {"hide-input", "remove-input", "remove-cell"}  # tags of cells whose code the page folds away or leaves out
CLAIMS = ("theorem", "proposition", "lemma", "corollary")
EXERCISES = 3
FILLER = re.compile(r"\b(simply(?! connected)|clearly|obviously)\b", re.IGNORECASE)
DEVICE = re.compile(r"""\.cuda\(|["']cuda(:\d+)?["']""")
DRAWING = re.compile(r"pyplot|%matplotlib|\bplt\.|\.savefig\(")
# What opens a lesson, what closes it.
PARTS = {
    "the line “You will be able to”": r"You will be able to",
    "the line “Before this”": r"Before this",
    "a summary": r"^#+ +.*\bSummary\b",
    "further reading": r"^#+ +.*\bFurther reading\b",
}
WHOLE = "whole notebook"


def calls(source, name):
    """The calls of the function `name` in a cell, however it is reached (`show`, `figures.show`)."""
    # A line of IPython's own ("%time", "!ls", "x?") is no Python; the cell's other lines are.
    lines = ["pass" if re.match(r"\s*[%!]|.*\?\s*$", line) else line for line in source.split("\n")]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in found if getattr(node.func, "attr", getattr(node.func, "id", "")) == name]


def given(call, position, name):
    return len(call.args) > position or any(keyword.arg in (name, None) for keyword in call.keywords)


def code_problems(cell):
    lines = sum(bool(line.strip()) for line in cell.source.split("\n"))
    if lines > LINES:
        yield f"{lines} lines of code, and may have {LINES}: move the plumbing into the library"
    widest = max(map(len, cell.source.split("\n")))
    if widest > WIDTH and not HIDDEN & set(cell.metadata.get("tags", ())):
        yield f"a line of {widest} characters, and the page shows {WIDTH}"
    if match := DEVICE.search(cell.source):
        yield f"names a device ({match[0]}): the library's backend chooses it"
    if match := DRAWING.search(cell.source):
        yield f"draws past the library ({match[0]}): use figures.new and figures.show, so that the figure has its text"
    if any(not given(call, 1, "alt") for call in calls(cell.source, "show")):
        yield "a figure without alternative text: figures.show(figure, alt)"
    if any(not given(call, 4, "alt") for call in calls(cell.source, "slider")):
        yield "a slider without alternative text: explore.slider(..., alt=...)"


def text_problems(cell):
    if match := FILLER.search(myst.without_math_and_code(cell.source)):
        yield f"filler: “{match[0]}”"
    if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")", cell.source):
        yield "an image without alternative text"
    if match := re.search(r"\{[a-z][\w:]*\}`", myst.ROLE.sub("", cell.source)):
        yield f"a role that is not closed: {match[0]}"
    if "data:image" in cell.source:
        yield "a stored image"
    for block in myst.directives(cell.source):
        if block.name in ("figure", "image") and not block.options.get("alt"):
            yield f"an image without alternative text: {{{block.name}}} {block.argument}"


def output_problems(cell, executed):
    """What the run shows and the source does not: `executed` is the cell with its outputs."""
    for output in executed.outputs:
        data = output.get("data", {})
        if image := next((mime for mime in data if mime.startswith("image/")), None):
            yield f"shows a picture of type {image}, which has no alternative text: use figures.show"
        for svg in re.findall(r"<svg\b[^>]*>", data.get("text/html", "")):
            label = re.search(r'aria-label="([^"]*)"', svg)
            if 'aria-hidden="true"' not in svg and not (label and re.search(r"\d", label[1])):
                yield "a figure without an alternative text that states its numbers"
    prints = any(output.output_type == "stream" for output in executed.outputs)
    if prints and not notebooks.kept(executed) and notebooks.NOT_COMPARED not in cell.metadata.get("tags", []):
        yield "prints beside what it shows or glues, so nbval compares nothing: print in a cell of its own"
    if notebooks.kept(executed) and not cell.outputs:
        yield "prints text that is not stored, so nbval can't compare it; run: python tools/notebooks.py --run"


def stated(notebook):
    """(kind, label, cell id) of every theorem, proposition, lemma and corollary."""
    for cell in notebook.cells:
        for block in myst.directives(cell.source) if cell.cell_type == "markdown" else ():
            kind = block.name.removeprefix("prf:")
            if block.name.startswith("prf:") and kind in CLAIMS:
                yield kind, block.label, cell.id


def glue_problems(notebook, executed):
    """A value that the prose shows and no cell glues. Names made at run time are read from the executed notebook."""
    names = {output.get("metadata", {}).get("scrapbook", {}).get("name")
             for cell in (executed or notebook).cells for output in cell.get("outputs", ())}
    for cell in notebook.cells:
        for call in calls(cell.source, "glue") if cell.cell_type == "code" else ():
            names |= {call.args[0].value} if call.args and isinstance(call.args[0], ast.Constant) else set()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            used = [text for name, text in myst.roles(cell.source) if name.startswith("glue")]
            used += [block.argument for block in myst.directives(cell.source) if block.name.startswith("glue")]
            for name in used:
                if name.split(":")[0].strip() not in names:
                    yield cell.id, f"shows the value {name!r}, which no cell glues"


def exercise_problems(notebook):
    """Each exercise is followed by its solution, and that by a cell that runs it and asserts the result."""
    open_exercise = solved = checked = None
    count = 0

    def unfinished():
        if open_exercise and not solved:
            yield open_exercise, "an exercise without a solution"
        elif open_exercise and not checked:
            yield open_exercise, "an exercise whose solution no cell asserts"

    for cell in notebook.cells:
        if cell.cell_type == "code":
            checked = checked or (solved and bool(re.search(r"^\s*assert\b", cell.source, re.MULTILINE)))
            continue
        for block in myst.directives(cell.source):
            name = block.name.removesuffix("-start")
            if name == "exercise":
                yield from unfinished()
                open_exercise, solved, checked, count = cell.id, False, False, count + 1
            elif name == "solution" or (name in ("dropdown", "admonition") and block.argument.startswith("Solution")):
                solved = True
    yield from unfinished()
    if count < EXERCISES:
        yield WHOLE, f"{count} exercises, and needs {EXERCISES}"


def lesson_problems(notebook, claimed):
    """What DESIGN asks of a lesson: `claimed` is the set of labels that have a row in book/claims.yml."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(texts)
    opening = text.split("You will be able to")[0]
    if not re.match(r"# +\S", text):
        yield WHOLE, "needs a title in its first cell"
    if "?" not in myst.without_math_and_code(opening):
        yield WHOLE, "needs a question at its top, before “You will be able to”"
    for part, pattern in PARTS.items():
        if not re.search(pattern, text, re.MULTILINE):
            yield WHOLE, f"needs {part}"
    if not any(calls(cell.source, "slider") for cell in notebook.cells if cell.cell_type == "code"):
        yield WHOLE, "needs a slider"
    for kind, label, cell_id in stated(notebook):
        if not label:
            yield cell_id, f"a {kind} without a label"
        elif label not in claimed:
            yield cell_id, f"the {kind} {label!r} has no row in book/claims.yml"
    yield from exercise_problems(notebook)


def problems(path, root=notebooks.ROOT, claimed=frozenset(), executed=None):
    """Everything that is amiss with the notebook at `path`. `executed` is the same notebook with a run's outputs."""
    notebook, name = notebooks.read(path), path.relative_to(root).as_posix()
    found = []
    for number, cell in enumerate(notebook.cells):
        if not re.fullmatch(r"[a-z][a-z0-9-]*", cell.id) or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell.id):
            found.append((cell.id, "needs an id that says what the cell does, such as “train”"))
        if cell.cell_type == "code":
            found += [(cell.id, text) for text in code_problems(cell)]
            if executed:
                found += [(cell.id, text) for text in output_problems(cell, executed.cells[number])]
        else:
            found += [(cell.id, text) for text in text_problems(cell)]
    found += glue_problems(notebook, executed)
    if name.startswith("lessons/"):
        found += lesson_problems(notebook, claimed)
    return notebooks.problems(path, root) + [f"{name}, cell {cell}: {text}" for cell, text in found]
