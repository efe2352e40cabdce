"""What the code of a cell defines and uses, read without running it."""

from __future__ import annotations

import ast
import re
import symtable
from functools import lru_cache

from IPython.core.inputtransformer2 import (
    classic_prompt,
    ipython_prompt,
    leading_empty_lines,
    leading_indent,
)

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
# In one pass over a cell of any length, where IPython's own translation takes one for each magic.
_MAGICS = [
    (re.compile(r"\A\s*%%.*"), ""),
    (re.compile(r"^([ \t]*)%time[ \t]+", re.MULTILINE), r"\1"),
    (re.compile(r"^([ \t]*)([%!?].*|\S*[\w)]\?+\s*)$", re.MULTILINE), r"\1pass"),
    (re.compile(r"=\s*[%!].*$", re.MULTILINE), "= None"),
]
_PASTED = (leading_empty_lines, leading_indent, classic_prompt, ipython_prompt)
_STAR = re.compile(r"^from +[\w.]+ +import +\*", re.MULTILINE)
ANY = "*"  # Defined by a cell that imports all names of a module.
_remembered = lru_cache(maxsize=256)


@_remembered
def python(source: str) -> str:
    """A cell as Python, for reading: without an indent, prompts and `%%time`, `pass` for other magics."""
    lines = source.splitlines(keepends=True)
    for clean in _PASTED:
        lines = clean(lines)
    source = "".join(lines)
    for pattern, instead in _MAGICS:
        source = pattern.sub(instead, source)
    return source


def top_names(source: str) -> list[str]:
    """The functions, classes and variables that a cell defines in statements of its own, in order."""
    try:
        tree = ast.parse(python(source))
    except _UNREADABLE:
        found = re.findall(r"^(?:def|class) +(\w+)|^(\w+) *=[^=]", python(source), re.MULTILINE)
        return [defined or assigned for defined, assigned in found]
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


@_remembered
def defined(source: str) -> frozenset[str]:
    """All names that a cell binds at its top level: imports and the variables of loops as well, and `ANY`."""
    table = _table(source)
    if table is None:
        return frozenset(top_names(source))
    names = (s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported())
    return frozenset([*names, *[ANY] * bool(_STAR.search(python(source)))])


@_remembered
def used(source: str) -> frozenset[str]:
    """The global names that a cell reads, inside its functions as well."""
    table = _table(source)
    if table is None:
        return frozenset(re.findall(r"[^\W\d]\w*", source))
    names, tables = set(), [table]
    while tables:
        one = tables.pop()
        tables += one.get_children()
        top = one.get_type() == "module"
        names |= {s.get_name() for s in one.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return frozenset(names)


@_remembered
def is_prose(source: str) -> bool:
    """Whether what stands in a code cell is text: no Python at all, or comments and strings alone."""
    try:
        body = ast.parse(python(source)).body
    except _UNREADABLE:
        return _table(source) is None and not top_names(source)
    return all(isinstance(n, ast.Expr) and isinstance(getattr(n.value, "value", None), str) for n in body)


def _table(source: str) -> symtable.SymbolTable | None:
    try:
        return symtable.symtable(python(source), "<cell>", "exec")
    except _UNREADABLE:
        return None
