"""Who may import whom, read from the source: leaves know no leaves, theory no torch, live no paper, and no
circle anywhere, not for types either.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "labkit"
LEAVES = {"data", "models", "training", "krylov", "measure", "theory"}
# What each room may import of labkit, besides itself.
ALLOWED = {
    **{leaf: set() for leaf in LEAVES},
    "training": {"protocol"},
    "measure": {"krylov", "protocol"},
    "figures": set(),
    "protocol": {"figures"},
    "live": {"protocol", "figures"},
    "labs": LEAVES | {"protocol", "figures"},
    "headless": {"protocol", "figures", "labs"},
    "notebooks": set(),
    "classroom": {"figures", "headless", "notebooks", ""},
    "cli": {"classroom", "headless", "labs", "notebooks", "protocol"},
    "__main__": {"cli"},
}
# How those that run labs come by one.
CATALOGUE = {("labkit.labs", name) for name in ("LABS", "find_lab", "load_lab")}
TEXTS = {".py", ".md", ".toml", ".ipynb", ".yml", ".yaml", ".txt", ".cfg", ".csv", ".sh", ""}
SKIPPED = {
    ".git", ".venv", "artifacts", "build", "dist", "__pycache__", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", ".hypothesis", ".ipynb_checkpoints",
}  # fmt: skip


def imports(source: str, package: str, *, running: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a source text, those inside functions included.

    With `running`, without those for types alone.
    """
    tree = ast.parse(source)
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if running and node in typing:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # Relative to the package, counted upwards.
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, *([module] if module else [])])
            yield from ((module, alias.name) for alias in node.names)


def parts_of_labkit(module: str, name: str) -> str | None:
    """The room of labkit that an import reaches, such as "measure", or None if it reaches none."""
    words = module.split(".")
    if words[0] != "labkit":
        return None
    return words[1] if len(words) > 1 else name


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(part: str, source: str, package: str) -> list[str]:
    """The imports of labkit that a room may not have."""
    if part not in ALLOWED:
        return []
    found = []
    for module, name in imports(source, package):
        reached = parts_of_labkit(module, name)
        if reached is not None and reached not in ALLOWED[part] | {part}:
            found.append(f"imports {module} {name}".strip())
        elif (
            reached == "protocol"
            and part in LEAVES
            and (module, name) != ("labkit.protocol.experiment", "Frame")
            and module not in tuple(f"labkit.protocol.{name}" for name in ("memory", "files", "lengths"))
        ):
            what = name or module
            found.append(f"imports {what} of protocol; leaves may have Frame, memory, files, lengths")
        elif reached == "labs" and part != "labs" and (module, name) not in CATALOGUE:
            found.append(f"imports {module} {name}, where a lab is had by load_lab alone")
    if part == "protocol":
        reach = (parts_of_labkit(*one) for one in imports(source, package, running=True))
        found += ["imports figures for more than types" for reached in reach if reached == "figures"]
    return found


def test_every_room_imports_only_what_its_place_allows():
    """One import of a lab in a leaf, and the leaf can no longer be used or tested without that paper."""
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sources()
        if (wrong := violations(part_of(path), path.read_text(encoding="utf-8"), package_of(path)))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("models", "from labkit.training import train"),
        ("training", "import labkit.measure.jacobian"),
        ("krylov", "def f():\n    from labkit import measure"),
        ("data", "from ..protocol.settings import Settings"),
        ("data", "from labkit.protocol.experiment import Frame"),
        ("training", "from labkit.protocol.experiment import drain"),
        ("measure", "import labkit.protocol.experiment"),
        ("live", "from labkit.labs.jacobian import LAB"),
        ("live", "from labkit.headless.audit import audit"),
        ("figures", "from labkit.models import mlp"),
        ("figures", "if TYPE_CHECKING:\n    from labkit.protocol.experiment import Frame"),
        ("protocol", "from labkit.figures import Chart"),
        ("protocol", "from labkit.headless.sweep import sweep"),
        ("labs", "from labkit.live import panel"),
        ("labs", "from labkit.headless.audit import audit"),
        ("headless", "from labkit.labs.jacobian import LAB"),
        ("cli", "from labkit.labs import jacobian"),
        ("cli", "from labkit.live import panel"),
        ("classroom", "from labkit.labs import load_lab"),
        ("notebooks", "from labkit.classroom.cells import read"),
    ],
)
def test_the_import_check_sees_each_kind_of_violation(part, source):
    """A check that finds nothing anywhere proves nothing."""
    assert violations(part, source, f"labkit.{part}") != []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (
            "measure",
            "from labkit.krylov import svd\nfrom .dense import dense_ntk\nfrom labkit.measure import ntk",
        ),
        ("training", "from labkit.protocol.experiment import Frame"),
        ("protocol", "if TYPE_CHECKING:\n    from labkit.figures import Chart"),
        ("headless", "from labkit.labs import LABS, load_lab"),
    ],
)
def test_the_import_check_lets_pass_what_is_allowed(part, source):
    """A check that refuses everything would be switched off."""
    assert violations(part, source, f"labkit.{part}") == []


def test_the_root_holds_rooms_and_the_tools_of_the_notebooks_alone():
    """Fourteen modules side by side, of which a newcomer cannot tell what belongs together."""
    files = {path.name for path in PACKAGE.glob("*.py")}
    assert files == {"__init__.py", "__main__.py", "notebooks.py"}
    rooms = {part_of(path) for path in sources()} - {"__init__"}
    assert rooms == set(ALLOWED)


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def circles(texts: dict[str, tuple[str, str]]) -> list[list[str]]:
    """Modules that import one another, in turn. `texts`: module -> source and package."""
    edges = {
        name: {
            wanted
            for module, item in imports(source, package)
            for wanted in ((f"{module}.{item}",) if f"{module}.{item}" in texts else (module,))
            if wanted in texts and wanted != name
        }
        for name, (source, package) in texts.items()
    }
    left, found = dict(edges), []
    while left:
        if free := [name for name, wanted in left.items() if not wanted & left.keys()]:
            for name in free:  # What imports nothing that is left is in no circle.
                del left[name]
            continue
        trail = [next(iter(left))]
        while (after := min(left[trail[-1]] & left.keys())) not in trail:
            trail.append(after)
        found.append(trail[trail.index(after) :])
        for name in trail:
            del left[name]
    return found


def test_no_modules_import_one_another():
    """Neither can be read, tested or moved without the other; an import for types is one, too."""
    texts = {module_of(path): (path.read_text(encoding="utf-8"), package_of(path)) for path in sources()}
    assert len(texts) > 150 and circles(texts) == []


def test_the_search_for_circles_sees_each_kind():
    """A check that finds nothing anywhere proves nothing."""
    two = {"labkit.a": "if TYPE_CHECKING:\n    from labkit.b import x", "labkit.b": "import labkit.c"}
    assert circles({name: (text, "labkit") for name, text in two.items()}) == []
    three = two | {"labkit.c": "def f():\n    from . import a", "labkit.d": "import labkit.a"}
    assert [set(one) for one in circles({name: (text, "labkit") for name, text in three.items()})] == [
        {"labkit.a", "labkit.b", "labkit.c"}
    ]


def test_theory_never_imports_torch():
    """A prediction computed by the library that also measures is no independent prediction."""
    found = [
        path.name
        for path in (PACKAGE / "theory").rglob("*.py")
        for module, _ in imports(path.read_text(encoding="utf-8"), package_of(path))
        if module.split(".")[0] in ("torch", "torchvision")
    ]
    assert found == []


def test_torchvision_is_imported_in_one_file_alone():
    """Beside a torch of another build it cannot be imported, and everything else must still work."""
    found = {
        str(path.relative_to(PACKAGE).as_posix())
        for path in sources()
        for module, _ in imports(path.read_text(encoding="utf-8"), package_of(path))
        if module.split(".")[0] == "torchvision"
    }
    assert found <= {"data/vision.py"}


def test_no_pyplot_in_the_package():
    """pyplot keeps global state, which JupyterLab's subshell threads corrupt."""
    found = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        for module, name in imports(path.read_text(encoding="utf-8"), package_of(path))
        if "pyplot" in (*module.split("."), name)
    ]
    assert found == []


def test_the_global_random_state_of_torch_is_never_set():
    """Seeding it changes a user's other results; all randomness goes through explicit generators."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("manual_seed", "manual_seed_all", "seed", "set_rng_state")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("torch", "random")
    ]
    assert found == []


def test_no_file_names_a_path_of_one_machine():
    """Such a path works for its author alone."""
    pattern = re.compile(r"(?:^|[\"' =(`])/(?:home|root|tmp|Users|work)/", re.MULTILINE)
    found = []
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if SKIPPED.intersection(inside) or not path.is_file() or path.suffix not in TEXTS:
            continue
        match = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        if match:
            found.append(f"{path.relative_to(ROOT)}: {match.group().strip()}")
    assert found == []


@pytest.mark.parametrize(("mark", "ends"), [("open", "labkit lab"), ("tests", "pytest")])
def test_readme_holds_the_two_commands_as_one_line_each(mark, ends):
    """.ci/run executes the line between these marks, so that what the README promises is what was tested."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(rf"<!-- {mark}:begin -->\s*```\w*\n(.*?)```\s*<!-- {mark}:end -->", text, re.DOTALL)
    assert block is not None
    lines = block.group(1).strip().splitlines()
    assert len(lines) == 1 and lines[0].endswith(ends) and "pip install" in lines[0]


def test_binder_installs_every_dependency():
    """A dependency forgotten there breaks the one link that most readers click."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = (
        (ROOT / "binder" / "environment.yml").read_text(encoding="utf-8").partition("dependencies:")[2]
    )
    listed = {re.split(r"[=<> ]", line.strip(" -"))[0] for line in environment.strip().splitlines()}
    other_names = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
    wanted = {re.split(r"[<>=!~\[ ]", line)[0] for line in project["dependencies"]}
    assert listed == {other_names.get(name, name) for name in wanted} | {"python", "pip"}
