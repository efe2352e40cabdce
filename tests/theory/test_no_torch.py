"""What the theory may import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import labkit.theory

ROOT = Path(labkit.theory.__file__).parent
ALLOWED = sys.stdlib_module_names | {"numpy", "scipy", "sklearn", "labkit"}


def test_theory_imports_no_torch_and_no_leaf():
    """Catches torch, or a leaf of labkit, creeping in: predictions must not share code with measurements."""
    for file in ROOT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in ALLOWED, f"{file.name} imports {name}"
                assert not name.startswith("labkit.") or name.startswith("labkit.theory"), (
                    f"{file.name}: {name}"
                )


def test_the_table_of_the_paper_names_functions_that_exist():
    """Catches a table that drifts from the code: every name in it is importable and exported."""
    from labkit.theory import jacobian, kernels, linear_model

    table = (jacobian.__doc__ or "").split("Names:")[0]
    homes = {"kernels": kernels, "linear_model": linear_model}
    for name in jacobian.__all__:
        assert hasattr(jacobian, name), name
    for word in table.replace(",", " ").replace(";", " ").split():
        head, _, tail = word.partition(".")
        if head in homes and tail:
            assert hasattr(homes[head], tail), word
        elif "_" in word and word.isidentifier():
            assert word in jacobian.__all__, word
