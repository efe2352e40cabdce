"""A notebook as the site shows it: what is folded in JupyterLab, the solutions, is folded here."""

from __future__ import annotations

import nbformat


def read(text: str) -> nbformat.NotebookNode:
    """The notebook, cells with a hidden source tagged so that MyST-NB folds them."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-input"]
    return notebook
