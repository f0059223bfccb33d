"""Keep the stored notebooks in one form, so that a diff shows what somebody changed and nothing else.

    python tools/notebooks.py --check    name every notebook and cell that is out of form (exit code 1 if there is one)
    python tools/notebooks.py --write    put them into that form
    python tools/notebooks.py --run      execute them first, and store the text output that nbval compares
    python tools/notebooks.py --list     the notebooks' paths

The form: one kernel name. A code cell whose output is text only keeps it, with the number that the cell has in a run
from the top; nbval compares it with every new run. Every other code cell has no output and no number: nbval runs it and
compares nothing. No image, no widget state, no editor's metadata is stored. Add paths to look at some notebooks only.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("tags", "mystnb", "nbgrader")  # what a cell may carry; the rest is an editor's own
NOT_COMPARED = "nbval-ignore-output"


def find(root=ROOT):
    """Every notebook under `root`, except in hidden folders and in those whose name starts with "_" (`_build`)."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [Path(folder, name) for name in files if name.endswith(".ipynb")]
    return sorted(found)


def read(path):
    """The notebook at `path`. A cell without an id gets one here, which `problems` then reports as a change."""
    return nbformat.read(path, as_version=4)


def text(notebook):
    """The notebook as it is stored: keys sorted, one newline at the end. The same notebook gives the same bytes."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def is_text(output):
    """True for printed text and for a plain repr. A glued value is not: the prose shows it, rounded there."""
    if output.output_type == "stream":
        return output.name == "stdout"
    plain = output.output_type in ("execute_result", "display_data") and list(output.data) == ["text/plain"]
    return plain and "scrapbook" not in output.metadata


def kept(cell):
    """True if the cell's outputs belong into the stored notebook."""
    outputs = cell.outputs
    return bool(outputs) and all(map(is_text, outputs)) and NOT_COMPARED not in cell.metadata.get("tags", [])


def stored(outputs, count):
    """The outputs of a text cell: printed text in one piece, however it was sent."""
    result = []
    for output in outputs:
        if output.output_type == "stream" and result and result[-1].output_type == "stream":
            result[-1].text += output.text
        elif output.output_type == "execute_result":
            result.append(nbformat.from_dict({**output, "execution_count": count, "metadata": {}}))
        else:
            result.append(nbformat.from_dict(output))
    return result


def normalise(notebook):
    """A copy of the notebook in the form described above."""
    notebook = nbformat.from_dict(notebook)
    extra = {key: notebook.metadata[key] for key in ("mystnb",) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict({**KERNEL, **extra})
    notebook.nbformat_minor = 5
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata})
    for count, cell in enumerate(code, start=1):
        keep = kept(cell)
        cell.outputs, cell.execution_count = (stored(cell.outputs, count), count) if keep else ([], None)
    return notebook


def problems(path, root=ROOT):
    """One line for every cell of the notebook at `path` that is out of form."""
    name = os.path.relpath(path, root)
    found, bytes_now = [], Path(path).read_text(encoding="utf-8")
    now = read(path)
    wanted = normalise(now)
    for cell, want in zip(now.cells, wanted.cells, strict=True):
        if cell.get("attachments"):
            found.append(f"{name}, cell {cell.id}: a stored image (attachment); draw it in a cell, or link to a file")
        for key in sorted(set(cell) | set(want)):
            if cell.get(key) != want.get(key):
                found.append(f"{name}, cell {cell.id}: {key} is out of form; run: python tools/notebooks.py --write")
    if not found and bytes_now != text(wanted):
        found.append(f"{name}: metadata or layout is out of form; run: python tools/notebooks.py --write")
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    for option in ("check", "write", "run", "list"):
        what.add_argument(f"--{option}", action="store_true")
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    failed = False
    for path in [path.resolve() for path in options.paths] or find():
        name = os.path.relpath(path, ROOT)
        if options.list:
            print(name)
        elif options.check:
            for line in problems(path):
                failed = True
                print(line)
        else:
            notebook = read(path)
            if options.run:
                sys.path.insert(0, str(ROOT))
                from tools import execute

                result = execute.execute(path, notebook)
                if result.error:
                    failed = True
                    print(f"{name}, {result.error}")
                    continue
                notebook = result.notebook
            after, before = text(normalise(notebook)), path.read_text(encoding="utf-8")
            if after != before:
                path.write_text(after, encoding="utf-8")
            print(f"{name}: {'unchanged' if after == before else 'written'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
