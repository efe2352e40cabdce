"""The reference has every public name, and every docstring says what a reader of its entry must know."""

from __future__ import annotations

import inspect
import re
import sys

import pytest

import labkit
from tests.conftest import ROOT
from tests.site.audit import lacks, lacks_cost

sys.path.insert(0, str(ROOT / "docs" / "site"))
import pages
import public

NAMES = {room: public.public(room) for room in public.ROOMS}
# Behind the commands: no notebook, no document and no other room calls these.
MACHINERY = re.compile(
    r"labkit\.(headless\.(files|report|terminal)"
    r"|classroom\.(grading\.(?!grade)|cells|course|hidden|instructor|leaks|preprocessors|student|trial))"
)


@pytest.mark.parametrize("room", public.ROOMS)
def test_every_function_says_what_it_takes_gives_and_refuses(room):
    """An entry with a signature and a sentence leaves shapes and errors to the source."""
    short = {
        one.path: found
        for one in NAMES[room]
        if inspect.isfunction(one.value)
        and (found := lacks(one.value, machinery=bool(MACHINERY.match(one.path))))
    }
    assert short == {}


@pytest.mark.parametrize("room", public.ROOMS)
def test_every_class_and_constant_says_what_it_is(room):
    """A dataclass without a docstring has its own signature for one."""
    silent = [
        one.path
        for one in NAMES[room]
        if not inspect.isfunction(one.value) and (not one.doc or one.doc.startswith(f"{one.name}("))
    ]
    assert silent == []


@pytest.mark.parametrize("room", ["measure", "krylov"])
def test_every_measure_and_solver_says_what_it_costs(room):
    """Who must run it to learn that it takes hours learns too late."""
    found = [one for one in NAMES[room] if inspect.isfunction(one.value) or inspect.isclass(one.value)]
    assert found
    assert [one.path for one in found if lacks_cost(one.value)] == []


def test_every_name_of_a_face_is_found_with_its_source():
    """A constant without a string below its assignment is in no entry."""
    for room in public.FACES:
        face = sys.modules[f"labkit.{room}"]
        assert public._exported(face) == {one.name for one in NAMES[room]}, room


def test_every_public_name_has_one_entry():
    """A name that the pages leave out is found by nobody who does not know it."""
    text = "\n".join(pages.pages().values())
    entries = re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)::(\w+)$", text, flags=re.MULTILINE)
    constants = re.findall(r"^\.\. py:currentmodule:: ([\w.]+)$|^\.\. py:data:: (\w+)$", text, re.MULTILINE)
    place, found = "", [".".join(entry) for entry in entries]
    for module, constant in constants:
        place = module or place
        found += [f"{place}.{constant}"] if constant else []
    wanted = [one.path for own in NAMES.values() for one in own]
    assert sorted(found) == sorted([*wanted, "labkit.labs.load_lab"])
    for name in labkit.__all__:
        assert f"{{py:obj}}`labkit.{name} <" in text, name


def test_the_rooms_are_all_of_them_but_labs_and_the_command_line():
    """A new room would have no pages, and nothing would say so."""
    rooms = {path.parent.name for path in (ROOT / "labkit").glob("*/__init__.py")}
    assert rooms - {"labs", "cli"} == set(public.ROOMS) == {*public.FACES, *public.OPEN}


def _silent(x):
    if x < 0:
        raise ValueError("x")
    return x


def _half(x: int, y: int) -> int:
    """Adds.

    Args:
        x: one.
    """
    return x + y


def _guarded(x: int) -> None:
    """Never mind.

    Args:
        x: one.
    """
    try:
        _silent(x)
    except ValueError:
        x = 0


def _thrower(x: int) -> int:
    """Throws

    Args:
        x: one.

    Returns:
        It.
    """
    if x:
        raise KeyError(x)
    return x


def test_the_audit_sees_each_kind_of_gap():
    """A check that finds nothing anywhere proves nothing."""
    assert lacks(_silent) == ["a docstring"]
    assert lacks(_half) == ["Args: y", "Returns"] and lacks(_half, machinery=True) == []
    assert lacks(_guarded) == []
    assert lacks(_thrower) == ["a sentence for a summary", "Raises"] == lacks(_thrower, machinery=True)
    assert lacks(labkit.svd) == []


def test_the_audit_sees_a_cost_that_is_not_told(monkeypatch):
    """Of functions, and of classes that work when they are made; not of those that hold fields alone."""
    told = [labkit.svd, labkit.krylov.lanczos, labkit.measure.gradient_gram, labkit.measure.Jacobian]
    for value in told:
        assert not lacks_cost(value)
        whole = inspect.getdoc(value)
        monkeypatch.setattr(value, "__doc__", whole.replace("Cost: ", "It takes "))
        assert lacks_cost(value)
        monkeypatch.setattr(value, "__doc__", whole.replace("Cost: ", "Cost:\n\n"))
        assert lacks_cost(value)
    fields = [labkit.krylov.SVD, labkit.krylov.Tridiagonal, labkit.krylov.Operator, labkit.measure.Flatness]
    assert not any("Cost: " in inspect.getdoc(value) or lacks_cost(value) for value in fields)


def test_the_audit_follows_a_call_to_the_check_at_the_door():
    """Most errors are raised by a helper that names the argument."""
    from labkit.theory import meta_theorem

    bare = inspect.cleandoc(meta_theorem.smallest_delta.__doc__).partition("Raises:")[0]
    source = meta_theorem.smallest_delta.__doc__
    try:
        meta_theorem.smallest_delta.__doc__ = bare
        assert lacks(meta_theorem.smallest_delta) == ["Raises"]
    finally:
        meta_theorem.smallest_delta.__doc__ = source
