"""What a docstring of a public name must say, read from the code: its parameters, its result, its errors; and
of what measures or solves, its cost."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes):", re.MULTILINE)


def lacks(function: Callable[..., Any], *, machinery: bool = False) -> list[str]:
    """What is missing. `machinery`: what no user calls needs a summary, and the errors of its own."""
    function = inspect.unwrap(function)
    doc = inspect.cleandoc(function.__doc__ or "")
    if not doc:
        return ["a docstring"]
    found = [] if _summary(doc).endswith((".", ":")) else ["a sentence for a summary"]
    sections = set(_SECTION.findall(doc))
    told = "Raises" in sections or "never raises" in doc
    if not told and _raises(function, set(), deep=not machinery):
        found.append("Raises")
    if machinery:
        return found
    taken = inspect.signature(function).parameters
    args = re.split(r"^\S", doc.partition("Args:\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found += [f"Args: {name}" for name in taken if not re.search(rf"\b{name}\b", args)]
    returns = function.__annotations__.get("return")
    if taken and returns not in (None, "None") and not sections & {"Returns", "Yields"}:
        found.append("Returns")
    return found


def lacks_cost(value: Any) -> bool:
    """Whether no paragraph of its docstring begins with "Cost:" and goes on.

    A class whose making its author did not write (of fields alone, or a protocol) takes nothing to make.
    """
    if inspect.isclass(value) and _function(value) is None:
        return False
    return not re.search(r"(?:\A|\n\n)Cost: \S", inspect.getdoc(value) or "")


def _summary(doc: str) -> str:
    return doc.partition("\n\n")[0].strip()


def _raises(function: Any, seen: set[Any], *, deep: bool) -> bool:
    """Whether it has a `raise`, or (deep) calls, outside of a `try`, a function of labkit that has one."""
    function = inspect.unwrap(function)
    if function in seen:
        return False
    seen.add(function)
    nodes = list(_unguarded(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    if any(isinstance(node, ast.Raise) for node in nodes):
        return True
    names = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    called = (_function(function.__globals__.get(name)) for name in names)
    return deep and any(_raises(one, seen, deep=True) for one in called if one is not None)


def _function(called: Any) -> Any:
    """The function of labkit that a call runs; of a class what its author wrote for its making."""
    if inspect.isclass(called):
        called = vars(called).get("__post_init__", vars(called).get("__init__"))
    if not inspect.isfunction(called) or not called.__module__.startswith("labkit"):
        return None
    return None if inspect.unwrap(called).__code__.co_filename == "<string>" else called


def _unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in the body of a `try` that catches something, and in functions defined inside."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.Try) and node.handlers and child in node.body:
            continue
        yield from _unguarded(child)
