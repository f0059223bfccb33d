"""Copies of the lessons for Colab, which knows neither this book's library nor its dialect of Markdown.

    python tools/colab.py --repository https://github.com/OWNER/NAME --commit SHA [--cache _build/.jupyter_cache] OUT

Each copy begins with a cell that installs the library of that very commit. Theorem blocks, notes, exercises and
references become Markdown that any notebook shows; the numbers in the prose are those of the executed notebook, where
the cache has it. A block or role that this file does not know is an error: nothing may go missing without a word.
"""

import argparse
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import nbformat
from pybtex.database import parse_file
from pybtex.richtext import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import execute, myst, notebooks  # noqa: E402

PROOF_KINDS = "theorem proposition lemma corollary definition axiom conjecture remark example algorithm property"
PROOF_KINDS = set((PROOF_KINDS + " observation criterion assumption notation").split())
NOTES = set("note tip hint important warning caution attention danger error seealso margin sidebar admonition".split())
HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


class Unknown(ValueError):
    """A directive, a role or a label that has no plain form here."""


class Book:
    """What a lesson refers to outside itself: numbered blocks, headings, pages, sources."""

    def __init__(self, root=ROOT, paths=()):
        self.root, self.labels, self.titles = Path(root), {}, {}
        bib = self.root / "book" / "references.bib"
        self.sources = parse_file(str(bib)).entries if bib.exists() else {}
        for path in [*paths, *self.root.glob("book/*.md")]:
            text = "\n\n".join(prose(path))
            name = path.relative_to(self.root).with_suffix("").as_posix()
            self.titles[name] = plain_title(re.search(r"^# +(.+)$", text, re.MULTILINE), name)
            number = re.match(r"(\d+)_(\d+)_", path.name)
            prefix = f"{number[1]}.{number[2]}." if number else ""
            counts = {}
            for block in myst.directives(text):
                kind = block.name.removeprefix("prf:").removesuffix("-start")
                if kind in PROOF_KINDS | {"exercise"} and "nonumber" not in block.options:
                    counts[kind] = counts.get(kind, 0) + 1
                    self.labels[block.label] = f"{kind.capitalize()} {prefix}{counts[kind]}"
                elif kind in ("figure", "table", "list-table") and block.label:
                    self.labels[block.label] = "the figure" if kind == "figure" else f"the table “{block.argument}”"
            for label, heading in re.findall(r"^\(([\w:.-]+)\)=\s*\n+#+ +(.+)$", text, re.MULTILINE):
                self.labels[label] = heading
            for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):  # as myst_heading_anchors makes them
                self.labels.setdefault(re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"), heading)

    def label(self, name):
        if name not in self.labels:
            raise Unknown(f"the label {name!r} is not defined in any page of the book")
        return self.labels[name]

    def page(self, name, path):
        """The title of the page `name`, which a page at `path` refers to ("/" is the root, else relative)."""
        base = self.root if name.startswith("/") else path.parent
        target = (base / name.lstrip("/")).resolve().relative_to(self.root.resolve())
        target = target.with_suffix("") if target.suffix in (".md", ".ipynb") else target
        if target.as_posix() not in self.titles:
            raise Unknown(f"there is no page {name!r}")
        return self.titles[target.as_posix()]

    def cite(self, key, textual=False):
        """ "Auer et al., 1996", or in running text "Auer et al. (1996)"."""
        if key not in self.sources:
            raise Unknown(f"the source {key!r} is not in book/references.bib")
        entry = self.sources[key]
        people = [latex(" ".join(person.prelast_names + person.last_names)) for person in authors(entry)]
        who = f"{people[0]} et al." if len(people) > 2 else " and ".join(people) or key
        return f"{who} ({entry.fields['year']})" if textual else f"{who}, {entry.fields['year']}"

    def reference(self, key):
        """One line for the list of references at the end."""
        entry = self.sources[key]
        names = ", ".join(latex(str(person)).replace(", ", " ") for person in authors(entry))
        where = next((entry.fields[name] for name in ("journal", "booktitle", "publisher") if name in entry.fields), "")
        doi = entry.fields.get("doi")
        link = f"https://doi.org/{doi}" if doi else entry.fields.get("url", "")
        parts = [names, f"*{latex(entry.fields['title'])}*", latex(where), entry.fields["year"], link]
        return ". ".join(part.rstrip(".") for part in parts if part)


def authors(entry):
    return entry.persons.get("author") or entry.persons.get("editor") or []


def latex(text):
    return str(Text.from_latex(text))


def plain_title(match, name):
    return match[1].strip() if match else name


def prose(path):
    """The texts of a page: the Markdown cells of a notebook, or a whole Markdown file."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    return [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown"]


def glued(notebook):
    """The values that an executed notebook has glued, by name."""
    values = {}
    for cell in notebook.cells if notebook else ():
        for output in cell.get("outputs", ()):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for mime, value in output.get("data", {}).items() if name else ():
                if mime.endswith("text/plain"):
                    values[name] = "".join(value).strip("'\"")
    return values


class Lesson:
    """One lesson on its way to plain Markdown."""

    def __init__(self, path, book, values):
        self.path, self.book, self.values = path, book, values
        self.cited, self.equations, self.kinds = [], {}, {}
        text = "\n".join(prose(path))
        labels = re.findall(r"\$\$ *\(([\w:.-]+)\)", text) + [
            block.label for block in myst.directives(text) if block.name == "math" and block.label
        ]
        self.equations = {label: number for number, label in enumerate(labels, start=1)}

    # Roles: small marks inside a line.

    def role(self, match):
        name, text = match["name"], match["text"].strip()
        title = re.fullmatch(r"(.*?)\s*<(.+)>", text, re.DOTALL)
        shown, target = (title[1].strip(), title[2].strip()) if title else ("", text)
        if name == "cite" or name.startswith(("cite:", "footcite")):
            keys = [key.strip() for key in text.split(",")]
            self.cited += [key for key in keys if key not in self.cited]
            textual = name.endswith(("cite:t", "cite:ts"))
            said = [self.book.cite(key, textual) for key in keys]
            return ", ".join(said) if textual else f"[{'; '.join(said)}]"
        if name in ("prf:ref", "ref", "numref"):
            label = self.book.label(target)
            return shown.replace("%s", label.split()[-1]).replace("{number}", label.split()[-1]) or label
        if name == "eq":
            if target not in self.equations:
                raise Unknown(f"the equation {target!r} is not in this lesson")
            return f"({self.equations[target]})"
        if name == "doc":
            return shown or f"*{self.book.page(target, self.path)}*"
        if name.startswith("glue"):
            return self.value(text)
        if name == "math":
            return f"${text}$"
        if name in ("term", "abbr", "download", "guilabel"):
            return shown or text
        if name in ("kbd", "code", "file"):
            return f"`{text}`"
        if name in ("sub", "sup"):
            return f"<{name}>{text}</{name}>"
        raise Unknown(f"the role {{{name}}} has no plain form")

    def value(self, text):
        name, _, form = text.partition(":")
        if name not in self.values:
            return f"(the value of `{name}`, computed in this notebook)"
        value = self.values[name]
        return format(float(value), form) if form else value

    def inline(self, text):
        """Everything that is not a block: roles, labels, comments, links to other pages."""
        return myst.outside_code(text, self.plain)

    def plain(self, text):
        text = re.sub(r"^(%.*|\+\+\+.*|\([\w:.-]+\)= *|\{[.#][^}`]*\} *)\n?", "", text, flags=re.MULTILINE)
        text = re.sub(r"\$\$([^$]+?)\$\$ *\(([\w:.-]+)\)", self.numbered, text)
        text = re.sub(r"^(?![\s:>#-])(.+)\n+: +", r"**\1**: ", text, flags=re.MULTILINE)  # a definition list
        text = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", self.link, text)
        return myst.ROLE.sub(self.role, text)

    def numbered(self, match):
        return f"$${match[1].rstrip()} \\tag{{{self.equations[match[2]]}}}$$"

    def link(self, match):
        """A link to another page of the book leads nowhere on Colab: its text stays."""
        shown, target = match[1], match[2]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        page, _, anchor = target.partition("#")
        if shown:
            return shown
        label = anchor or page
        return self.book.label(label) if anchor or label in self.book.labels else self.book.page(page, self.path)

    # Directives: blocks.

    def markdown(self, text):
        parts = [self.inline(part) if isinstance(part, str) else self.block(part) for part in myst.blocks(text)]
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(part.strip("\n") for part in parts)).strip("\n")

    def block(self, block):
        name, body = block.name, partial(self.markdown, block.body)
        kind = name.removeprefix("prf:")
        argument = self.inline(block.argument)
        if kind in PROOF_KINDS:
            number = self.book.labels.get(block.label, kind.capitalize())
            return quote(f"**{number}{f' ({argument})' if argument else ''}.**\n\n{body()}")
        if kind == "proof":
            return f"*Proof.* {body()} ∎"
        if name in ("exercise", "exercise-start"):
            number = self.book.labels.get(block.label, "Exercise")
            head = f"**{number}{f' ({argument})' if argument else ''}**"
            return quote(f"{head}\n\n{body()}") if name == "exercise" else head
        if name in ("solution", "solution-start"):
            head = f"Solution to {self.book.labels.get(block.argument, 'the exercise')}"
            return folded(head, body()) if name == "solution" else f"**{head}**"
        if name in ("exercise-end", "solution-end", "bibliography", "tableofcontents", "contents"):
            return ""
        if name == "dropdown" or (name in NOTES and "dropdown" in str(block.options.get("class", ""))):
            return folded(argument or name.capitalize(), body())
        if name in NOTES:
            if name in ("admonition", "sidebar", "margin"):
                return quote(f"**{argument}**\n\n{body()}" if argument else body())
            head = f"**{name.capitalize()}.** "
            return quote(f"{head}{argument} {body()}".strip())  # the text may begin on the first line: ```{note} So.
        if name == "math":
            tag = f" \\tag{{{self.equations[block.label]}}}" if block.label else ""
            return f"$$\n{block.argument}{block.body}{tag}\n$$"
        if name in ("code", "code-block", "sourcecode"):
            return f"```{block.argument}\n{block.body}\n```"
        if name in ("figure", "image"):
            alt = block.options.get("alt", "")
            return f"*{alt}*\n\n{body()}".rstrip()
        if name in ("table", "list-table"):
            rows = body() if name == "table" else listed_table(self.inline(block.body))
            return f"**{argument}**\n\n{rows}" if argument else rows
        if name in ("tab-set", "grid", "card", "tab-item", "grid-item", "grid-item-card", "epigraph", "topic"):
            return f"**{argument}**\n\n{body()}" if argument and name not in ("grid", "tab-set") else body()
        if name.startswith("glue"):
            return self.value(block.argument)
        raise Unknown(f"the directive {{{name}}} has no plain form")


def quote(text):
    return "\n".join(f"> {line}".rstrip() for line in text.strip("\n").split("\n"))


def folded(summary, text):
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def listed_table(text):
    """A list of lists ("* - a" and "  - b") as a Markdown table; the first row is its head."""
    rows = []
    for line in text.split("\n"):
        if match := re.match(r"^[*-] +- ?(.*)$", line):
            rows.append([match[1]])
        elif match := re.match(r"^ +- ?(.*)$", line):
            rows[-1].append(match[1])
        elif line.strip():
            rows[-1][-1] += " " + line.strip()
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def convert(path, book, repository, commit, executed=None):
    """The Colab copy of the lesson at `path`. Raises `Unknown`, naming the cell, where something has no plain form."""
    notebook = notebooks.normalise(notebooks.read(path))
    lesson = Lesson(path, book, glued(executed))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if HIDDEN & set(cell.metadata.get("tags", ())) and not cell.source.startswith("%%"):
                cell.source = f"#@title Code (double-click to read it)\n{cell.source}"
                cell.metadata["cellView"] = "form"
            continue
        try:
            cell.source = lesson.markdown(cell.source)
        except Unknown as error:
            raise Unknown(f"{path.relative_to(book.root)}, cell {cell.id}: {error}") from None
        left = re.search(r"^ *(?:`{3,}|:{3,})\{|\{[a-z][\w:]*\}`", cell.source, re.MULTILINE)
        if left:
            raise Unknown(f"{path.relative_to(book.root)}, cell {cell.id}: {left[0]!r} is left")
    install = f'%pip install --quiet "losslab[glue] @ git+{repository}@{commit}"'
    note = "# Colab has PyTorch and not this course's library: install it once per session.\n"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(note + install, id="install-losslab"))
    if lesson.cited:
        lines = ["## References", "", *(f"- {book.reference(key)}" for key in lesson.cited)]
        notebook.cells.append(nbformat.v4.new_markdown_cell("\n".join(lines), id="references"))
    return notebook


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, help="its address, without .git")
    parser.add_argument("--commit", required=True)
    parser.add_argument("--cache", type=Path, help="the cache of executed notebooks, for the numbers in the prose")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    paths = execute.files_of(ROOT / "_toc.yml")
    book = Book(ROOT, paths)
    shutil.rmtree(options.out, ignore_errors=True)
    for path in paths:
        executed = execute.executed(path, options.cache) if options.cache else None
        copy = convert(path, book, options.repository, options.commit, executed)
        target = options.out / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(notebooks.text(copy), encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
