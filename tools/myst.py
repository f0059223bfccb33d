"""Read the directives and roles of MyST Markdown: as much of the language as the lessons use."""

import re
import textwrap
from dataclasses import dataclass, field

import yaml

OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<name>[\w:+-]+)\})?(?P<argument>[^`]*)$")
ROLE = re.compile(r"\{(?P<name>[a-zA-Z][\w:+-]*)\}(?P<ticks>`+)(?P<text>.+?)(?P=ticks)(?!`)", re.DOTALL)


@dataclass
class Directive:
    """A fenced block with a name: its argument (the rest of the first line), its options and its text."""

    name: str
    argument: str
    options: dict = field(default_factory=dict)
    body: str = ""

    @property
    def label(self):
        return str(self.options.get("label") or self.options.get("name") or "")


def split_options(lines):
    """The options at the top of a directive (":key: value" lines, or YAML between "---") and the lines after them."""
    if lines and lines[0].strip() == "---":
        end = next((i for i, line in enumerate(lines[1:], start=1) if line.strip() == "---"), len(lines))
        return yaml.safe_load("\n".join(lines[1:end])) or {}, lines[end + 1 :]
    options, i = {}, 0
    while i < len(lines) and (match := re.match(r"^\s*:([\w-]+):\s*(.*)$", lines[i])):
        options[match[1]] = match[2].strip()
        i += 1
    return options, lines[i:]


def blocks(text):
    """The text as a list: strings (Markdown, code fences and all) and the `Directive`s between them, in order.

    >>> blocks("One.\\n```{note} Look\\n:class: tip\\nHere.\\n```")
    ['One.', Directive(name='note', argument='Look', options={'class': 'tip'}, body='Here.')]
    """
    lines, result, plain, i = text.split("\n"), [], [], 0
    while i < len(lines):
        opening = OPENING.match(lines[i])
        if not opening:
            plain.append(lines[i])
            i += 1
            continue
        fence = opening["fence"]
        closing = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}} *$")
        end = next((j for j in range(i + 1, len(lines)) if closing.match(lines[j])), len(lines))
        if opening["name"] is None:
            plain += lines[i : end + 1]
        else:
            if plain:
                result.append("\n".join(plain))
            plain = []
            options, body = split_options(lines[i + 1 : end])
            body = textwrap.dedent("\n".join(body)).strip("\n")
            result.append(Directive(opening["name"], opening["argument"].strip(), options, body))
        i = end + 1
    return result + (["\n".join(plain)] if plain else [])


def directives(text):
    """Every directive of the text, those inside others too, outer ones first."""
    for block in blocks(text):
        if isinstance(block, Directive):
            yield block
            yield from directives(block.body)


def outside_code(text, change):
    """The text with `change` applied to everything that is not in a code fence."""
    pieces = re.split(r"(^ *(?:```|~~~)[\s\S]*?^ *(?:```|~~~) *$)", text, flags=re.MULTILINE)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))


def without_math_and_code(text):
    """The words of the text: no formulas, no code, no roles' targets."""
    text = re.sub(r"^ *(`{3,}|~{3,})(?!\{)[\s\S]*?^ *\1 *$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\$\$[\s\S]*?\$\$|\$[^$\n]+\$|`[^`\n]*`", "", text)
    return text


def roles(text):
    """(name, text) of every role."""
    return [(match["name"], match["text"]) for match in ROLE.finditer(text)]
