"""The pages of the reference: one a module with public names, one a room, and one for `labkit` itself.

They are written from the code before each build, so no list has to follow it. `pages()` needs no Sphinx.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from pathlib import Path

import public

NOTE = """
A shape is written in brackets, `(n, K)`; the letters are those of [the notation](../notation.md).
Everything is dimensionless unless an entry names a unit: sizes of memory are in bytes, times in seconds. What
error to expect by dtype is summed up in [numerics](../numerics.md), which function fits when in
[which measure](../which-measure.md).
"""


def pages() -> dict[str, str]:
    """Path below docs/reference -> Markdown."""
    found = {"index.md": _index()}
    for room in public.ROOMS:
        names = public.public(room)
        groups = {key: list(own) for key, own in itertools.groupby(names, key=lambda one: one.module)}
        found[f"{room}/index.md"] = _room(room, groups)
        for module, own in groups.items():
            found[f"{room}/{_leaf(room, module)}.md"] = _module(module, own)
    return found


def write(folder: Path) -> None:
    """Bring the folder to what `pages()` says; what is as it should be keeps its date, for quick rebuilds."""
    wanted = {folder / name: text for name, text in pages().items()}
    for path in set(folder.rglob("*.md")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def markdown(doc: str) -> str:
    """A module's docstring as Markdown: its indented tables stay as they stand, its roles become MyST's."""
    doc = re.sub(r":(?:py:)?(func|class|mod|data):`", r"{py:\1}`", doc)
    lines: list[str] = []
    item = False
    for line in doc.splitlines():
        item = line.startswith(("* ", "- ")) or (item and line.startswith(" "))
        if item:  # A point's further lines stand below its text, however deep that is.
            lines.append(_text(line if not line.startswith(" ") else f"  {line.strip()}"))
        elif line.startswith("    ") or (line.startswith("  ") and lines and lines[-1].startswith("    ")):
            lines += [""] if lines and lines[-1].strip() and not lines[-1].startswith("    ") else []
            lines.append(line)
        else:
            lines.append(_text(line))
    return "\n".join(lines)


def _text(line: str) -> str:
    """A line of running text: n*K is a product, and > at its start no quotation."""
    return re.sub(r"(?<=\w)\*(?=\w)", r"\\*", re.sub(r"^>", r"\\>", line))


def _leaf(room: str, module: str) -> str:
    return module.removeprefix(f"labkit.{room}").strip(".").replace(".", "-") or "names"


def _index() -> str:
    import labkit

    where = {one.name: one for room in public.ROOMS for one in public.public(room)}
    catalogue = importlib.import_module("labkit.labs").load_lab
    where["load_lab"] = public.Name("load_lab", "labkit.labs", "labkit.labs", catalogue)
    rows = [
        f"| {_link(where[name], f'labkit.{name}')} | {_cell(where[name].summary)} |"
        for name in labkit.__all__
    ]
    rooms = "\n".join(f"{room}/index" for room in public.ROOMS)
    table = "\n".join(["| name | |", "| --- | --- |", *rows])
    doc = markdown(inspect.getdoc(labkit) or "").replace("# doctest: +SKIP", "").partition("\n")
    entry = "```{eval-rst}\n.. autofunction:: labkit.labs::load_lab\n```"
    return (
        f"# Reference\n\n{doc[0]}\n{NOTE}\n## labkit\n\n{table}\n\n{entry}\n\n"
        f"## Rooms\n\n```{{toctree}}\n:maxdepth: 1\n\n{rooms}\n```\n"
    )


def _room(room: str, groups: dict[str, list[public.Name]]) -> str:
    face = importlib.import_module(f"labkit.{room}")
    rows = [f"| {_link(one, one.name)} | {_cell(one.summary)} |" for own in groups.values() for one in own]
    table = "\n".join(["| name | |", "| --- | --- |", *rows])
    inner = "\n".join(_leaf(room, module) for module in groups)
    return (
        f"# labkit.{room}\n\n{markdown(inspect.getdoc(face) or '')}\n\n{table}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{inner}\n```\n"
    )


def _module(module: str, own: list[public.Name]) -> str:
    head = inspect.getdoc(importlib.import_module(module)) or ""
    entries = "\n\n".join([f".. py:currentmodule:: {own[0].place}", *map(_entry, own)])
    title = module.removeprefix("labkit.").partition(".")[2] or module
    return f"# {title}\n\n`{module}`\n\n{markdown(head)}\n\n```{{eval-rst}}\n{entries}\n```\n"


def _entry(one: public.Name) -> str:
    if inspect.isclass(one.value) or inspect.isfunction(one.value):
        kind = "class" if inspect.isclass(one.value) else "function"
        return f".. auto{kind}:: {one.place}::{one.name}"
    value = f"\n   :value: {one.value!r}" if isinstance(one.value, tuple) else ""
    text = "\n".join(f"   {line}" for line in one.doc.splitlines())
    return f".. py:data:: {one.name}{value}\n\n{text}"


def _link(one: public.Name, shown: str) -> str:
    return f"{{py:obj}}`{shown} <{one.path}>`"


def _cell(text: str) -> str:
    """Text that may stand in a table: outside of code its bars, stars and dollars are no markup."""
    parts = re.split(r"(`+[^`]+`+)", re.sub(r":(?:py:)?(?:func|class|mod|data):`", "`", text))
    parts[::2] = [re.sub(r"([$*_<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("|", r"\|")
