"""The exercises of a notebook, read out of the tags of its cells, with their points.

    exercises-setup    the imports that the exercises need                                     (one code cell)
    exercise-5.1       a function that ends in `raise NotImplementedError`, and an example to try it on
    solution-5.1       the same function, named `solution_<name>`, and nothing else
    tests-5.1          a function `check_<name>`, and as the last line the call of `grade`
    then-5.1           what the solution is good for: calls `solution_<name>`; graded is nothing of it
    exercise-5.5       a prediction: two dicts; its `tests-5.5` ends in the call of `check_prediction`
    exercise-5.6       an open question: a markdown cell with the line `*Your answer.*`
    solution-5.6       its rubric and an answer, in markdown

An exercise in parts has a letter more: 5.2a, 5.2b. The points stand in the heading, as in
"### 5.1 Title (3 points)"; a part without a heading of its own carries the tag `points-2` on its tests.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nbformat import NotebookNode

__all__ = ["OPEN_ANSWER", "Exercise", "Sheet", "read_sheet", "tags"]

OPEN_ANSWER = "*Your answer.*"
_NAME = r"\d+\.\d+[a-z]?"
_ROLE = re.compile(rf"(exercise|solution|tests|then)-({_NAME})")
_HEADING = re.compile(rf"^#+ +({_NAME})\b.*\(.*?(\d+) points?\)", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One exercise, or one part of one.

    Attributes:
        name: "5.1" or "5.2a".
        kind: "code" is graded by its tests, "prediction" by what its items allow, "open" by hand.
        points: what it is worth.
        cell: position of what the student edits.
        solution: position of the solution; None for a prediction.
        tests: position of the hidden tests; None for an open question.
        function: the name of the function that is asked for; empty unless `kind` is "code".
    """

    name: str
    kind: Literal["code", "prediction", "open"]
    points: int
    cell: int
    solution: int | None
    tests: int | None
    function: str = ""

    @property
    def id(self) -> str:
        """The name as nbgrader takes it: "5-2a"."""
        return self.name.replace(".", "-")


@dataclass(frozen=True)
class Sheet:
    """The exercises of a notebook, in order.

    Attributes:
        setup: position of the cell with the imports.
        exercises: in the order of the notebook.
        then: position -> name, "5.2", of the cells that use what was solved.
        asides: positions of other cells whose tag begins with "solution-", such as `solution-4.2-then`.
    """

    setup: int
    exercises: tuple[Exercise, ...]
    then: Mapping[int, str]
    asides: tuple[int, ...]

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def read_sheet(notebook: NotebookNode) -> Sheet:
    """Reads and checks the exercises of a notebook.

    Raises:
        ValueError: there are none, a cell is missing or tagged twice, a solution does not match its stub, or
            the points do not add up; the message names the exercise.
    """
    places = _places(notebook)
    if "exercises-setup" not in places:
        raise ValueError("no cell is tagged 'exercises-setup': there are no exercises to release")
    names = [tag.removeprefix("exercise-") for tag in places if tag.startswith("exercise-")]
    for tag in places:
        role, _, name = tag.partition("-")
        if role in ("solution", "tests") and _ROLE.fullmatch(tag) and name not in names:
            raise ValueError(f"there is a cell tagged {tag!r}, and none tagged 'exercise-{name}'")
    if not names:
        raise ValueError("no cell is tagged as an exercise, such as 'exercise-5.1'")
    points = _points(notebook, names, places)
    then = {place: tag.removeprefix("then-") for tag, place in places.items() if tag.startswith("then-")}
    asides = [p for tag, p in places.items() if tag.startswith("solution-") and not _ROLE.fullmatch(tag)]
    exercises = tuple(_exercise(notebook, name, points[name], places) for name in names)
    functions = [exercise.function for exercise in exercises if exercise.function]
    for place in then:
        parse(notebook, place, f"then-{then[place]}")
    if len(set(functions)) < len(functions):
        raise ValueError(f"two exercises ask for one function: {', '.join(sorted(functions))}")
    return Sheet(places["exercises-setup"], exercises, then, tuple(asides))


def parse(notebook: NotebookNode, place: int, tag: str) -> ast.Module:
    """The syntax tree of a code cell.

    Args:
        notebook: in which it stands.
        place: its number.
        tag: its name in the message.

    Returns:
        The tree.

    Raises:
        ValueError: it is not code, or not Python.
    """
    cell = notebook.cells[place]
    if cell.cell_type != "code":
        raise ValueError(f"the cell tagged {tag!r} must be code, and is {cell.cell_type}")
    try:
        return ast.parse(cell.source)
    except SyntaxError as error:
        raise ValueError(f"the cell tagged {tag!r} is not Python: {error.msg}, line {error.lineno}") from None


def stub(tree: ast.Module) -> ast.FunctionDef | None:
    """The function of an exercise: the one that ends in `raise NotImplementedError`."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Raise):
            raised = node.body[-1].exc
            if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
                return node
    return None


def last_call(tree: ast.Module) -> ast.Call | None:
    """The call that a cell of tests ends in: of `grade` or `check_prediction`."""
    node = tree.body[-1] if tree.body else None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if isinstance(called, ast.Name) and called.id in ("grade", "check_prediction"):
            return node.value
    return None


def _places(notebook: NotebookNode) -> dict[str, int]:
    """Tag of an exercise -> position of its cell."""
    places: dict[str, int] = {}
    for place, cell in enumerate(notebook.cells):
        for tag in tags(cell):
            known = _ROLE.fullmatch(tag) or tag == "exercises-setup"
            if not known and re.match(r"(exercise|tests|then)-", tag):
                raise ValueError(f"the tag {tag!r} names no exercise; it takes a name such as 5.1 or 5.2a")
            if not known and not tag.startswith("solution-"):
                continue
            if tag in places:
                raise ValueError(f"two cells are tagged {tag!r}")
            places[tag] = place
    return places


def _points(notebook: NotebookNode, names: list[str], places: Mapping[str, int]) -> dict[str, int]:
    """The points of each exercise or part, checked against the headings."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = {name: int(points) for text in texts for name, points in _HEADING.findall(text)}
    found = {}
    for name in names:
        marked = [tag for tag in _tests_tags(notebook, name, places) if re.fullmatch(r"points-\d+", tag)]
        if marked:
            found[name] = int(marked[0].removeprefix("points-"))
        elif name in headings:
            found[name] = headings[name]
        else:
            raise ValueError(
                f"exercise {name}: no heading such as '### {name} Title (3 points)' tells its points"
            )
        if not found[name]:
            raise ValueError(f"exercise {name} is worth no points")
    for heading, points in headings.items():
        parts = [found[name] for name in names if name == heading or name[:-1] == heading]
        if sum(parts) != points:
            told = " + ".join(map(str, parts)) or "no exercise"
            raise ValueError(f"the heading of {heading} says {points} points, and there is {told}")
    for text in texts:
        stated = re.search(r"^## Exercises\s+(\d+) points", text)
        if stated and int(stated[1]) != sum(found.values()):
            raise ValueError(f"the exercises say {stated[1]} points, and add up to {sum(found.values())}")
    return found


def _tests_tags(notebook: NotebookNode, name: str, places: Mapping[str, int]) -> list[str]:
    place = places.get(f"tests-{name}")
    return [] if place is None else tags(notebook.cells[place])


def _exercise(notebook: NotebookNode, name: str, points: int, places: Mapping[str, int]) -> Exercise:
    cell, solution, tests = (places.get(f"{role}-{name}") for role in ("exercise", "solution", "tests"))
    assert cell is not None
    if notebook.cells[cell].cell_type == "markdown":
        if notebook.cells[cell].source.splitlines().count(OPEN_ANSWER) != 1:
            raise ValueError(
                f"exercise {name}: an open question has one line {OPEN_ANSWER!r}, for the answer"
            )
        if solution is None or tests is not None:
            wrong = "has no rubric" if solution is None else "is graded by hand and has tests"
            raise ValueError(f"exercise {name}: an open question takes a 'solution-{name}'; it {wrong}")
        return Exercise(name, "open", points, cell, solution, None)
    tree = parse(notebook, cell, f"exercise-{name}")
    if tests is None:
        raise ValueError(f"exercise {name}: there is no cell tagged 'tests-{name}'")
    call = last_call(parse(notebook, tests, f"tests-{name}"))
    if call is None:
        raise ValueError(f"tests-{name} must end in the call of grade(...) or check_prediction(...)")
    if _name(call.func) == "check_prediction":
        _check_prediction(name, call, solution)
        return Exercise(name, "prediction", points, cell, None, tests)
    if solution is None:
        raise ValueError(f"exercise {name}: there is no cell tagged 'solution-{name}'")
    function = stub(tree)
    if function is None:
        raise ValueError(f"exercise-{name} has no function that ends in a bare `raise NotImplementedError`")
    _check_code(name, call, function, parse(notebook, solution, f"solution-{name}").body)
    return Exercise(name, "code", points, cell, solution, tests, function.name)


def _check_prediction(name: str, call: ast.Call, solution: int | None) -> None:
    if solution is not None:
        raise ValueError(f"exercise {name}: a prediction has no solution; its tests hold what is provable")
    if [_name(node) for node in call.args[:2]] != ["prediction", "observed"] or len(call.args) != 4:
        raise ValueError(f"tests-{name} must call check_prediction(prediction, observed, allowed, provable)")
    _require_name(name, next((keyword.value for keyword in call.keywords if keyword.arg == "name"), None))


def _check_code(name: str, call: ast.Call, function: ast.FunctionDef, body: list[ast.stmt]) -> None:
    """That the call names its exercise and its functions, and the solution takes what the stub takes."""
    _require_name(name, call.args[0] if call.args else None)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    wanted = {"solution": f"solution_{function.name}", "answer": function.name}
    if {key: _name(keywords.get(key)) for key in wanted} != wanted or len(call.args) != 2:
        told = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise ValueError(f"tests-{name} must call grade({name!r}, check_{function.name}, {told})")
    answer = body[0] if len(body) == 1 else None
    if not isinstance(answer, ast.FunctionDef) or answer.name != wanted["solution"]:
        raise ValueError(f"solution-{name} must hold the function {wanted['solution']} and nothing else")
    if ast.dump(answer.args) != ast.dump(function.args):
        raise ValueError(f"{answer.name} and the stub {function.name} take different arguments")
    if answer.body[0].lineno == answer.lineno:
        raise ValueError(f"{answer.name}: its body must begin on a line of its own")


def _name(node: Any) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _require_name(name: str, node: ast.expr | None) -> None:
    said = node.value if isinstance(node, ast.Constant) else None
    if said != name:
        raise ValueError(f"tests-{name} grades {said!r}; it should name {name!r}")
