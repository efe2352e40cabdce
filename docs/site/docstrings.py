"""What the house's docstrings need before Sphinx reads them as reStructuredText.

They are written for people and for `help()`: |x| is a norm, r_0 a residual, w* a minimum. Such characters are
escaped outside of code; the paragraphs that start with "Cost:" and the like get that word in bold.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import labkit

LEADS = ("Shapes", "Shape", "Cost", "Error to expect", "Reference", "References", "Units", "Source", "Limits")
_LEAD = re.compile(rf"({'|'.join(LEADS)}): (?=\S)")
_NDARRAY = re.compile(r"[\w.]*ndarray\[tuple\[[^\]]*\], [\w.]*dtype\[([\w.]+)\]\]")
_CODE = re.compile(r"(``.+?``|:\w+(?::\w+)?:`[^`]+`|`[^`]+`)")


def prepare(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's hook: rewrites `lines` in place."""
    lines[:] = [
        re.sub(r"^(\s*)Returns:$", r"\1:returns:", line) for line in _one_a_line(lines, _members(value))
    ]
    lines[:] = _emphasised([line if _is_code(line) else escaped(line) for line in lines])
    short = name.rpartition(".")[2]
    if what in ("class", "function") and getattr(labkit, short, None) is value and short in labkit.__all__:
        lines[:] = [*lines[:1], "", f"Also as ``labkit.{short}``.", *lines[1:]]


def restore(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """After napoleon, which takes the words before a colon, in the docstring of a property, for its type."""
    if what == "property":
        lines[:] = [*(inspect.getdoc(value) or "").splitlines(), ""]
        prepare(app, what, name, value, options, lines)


def signature(app: Any, what: str, name: str, value: Any, options: Any, text: str, result: str) -> Any:
    """Sphinx's hook: an array of float64 as it is written in the source, not as NumPy unfolds it."""
    return tuple(part and _NDARRAY.sub(r"NDArray[\1]", part) for part in (text, result))


def _members(value: Any) -> set[str] | None:
    """What an Args section may name; None for a class, whose attributes may be set anywhere."""
    if inspect.isclass(value):
        return None
    try:
        taken = set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        taken = set()
    return taken


def _one_a_line(lines: list[str], names: set[str] | None) -> list[str]:
    """ "x: (n, d). y: (n,)." as two entries: the house puts short ones into one line."""
    out: list[str] = []
    section, depth = False, 0
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() in ("Args:", "Attributes:"):
            section, depth = True, indent
        elif line.strip() and indent <= depth:
            section = False
        elif section and line.strip():
            parts = re.split(r"(?<=[.;]) (?=(\w+(?:, \w+)*): )", line)
            # The pattern's group comes back between the parts; what names no parameter stays where it was.
            for start, name in zip(parts[2::2], parts[1::2], strict=True):
                known = names is None or set(name.split(", ")) <= names
                parts[0] += f"\n{' ' * (depth + 4)}{start}" if known else f" {start}"
            out += parts[0].split("\n")
            continue
        out.append(line)
    return out


def _is_code(line: str) -> bool:
    return line.lstrip().startswith((">>>", "..."))


def escaped(line: str) -> str:
    """Without markup that was not meant: bars, trailing underscores and stars outside of code."""
    parts = _CODE.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("\\", r"\\").replace("|", r"\|")
        parts[i] = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", parts[i])
        parts[i] = re.sub(r"(?<!\w)\*(?!\*)(?!\w[^*]*\w\*)(?!\*)|\*(?=\*)|(?<=\*)\*", r"\\*", parts[i])
    return "".join(parts)


def _emphasised(lines: list[str]) -> list[str]:
    """Cost: … with its continuation lines, which are indented in some places, as one paragraph."""
    out: list[str] = []
    inside = False
    for line in lines:
        lead = _LEAD.match(line)
        inside = bool(lead) or (inside and bool(line.strip()))
        if lead:
            line = f"**{lead.group(1)}:** {line[lead.end() :]}"
            out += [""] if out and out[-1].strip() else []
        out.append(line.strip() if inside else line)
    return out
