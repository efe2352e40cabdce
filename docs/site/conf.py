"""The site: README, docs, notebooks with their stored outputs, and a reference written from the docstrings.

Built from the root of the checkout, so that a link in a page is the same file here and on a forge:

    sphinx-build -W --keep-going -q -c docs/site . build/site
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import docstrings  # noqa: E402
import pages  # noqa: E402

import labkit  # noqa: E402

project = "labkit"
author = copyright = "the labkit authors"
version = release = labkit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # a copy of MathJax in the site: the pages are read without a network, too
]
root_doc = "README"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "binder/README.md", "benchmarks/README.md", "docs/*.md",
    "docs/reference/**", "notebooks/*.ipynb",
]  # fmt: skip
exclude_patterns = [".*", "build", "artifacts", "labkit", "tests", "docs/site"]  # not even walked through

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # The notebooks carry their outputs, and other tests hold them to it.
nb_merge_streams = True
nb_custom_formats = {".ipynb": "stored.read"}

default_role = "py:obj"
add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # not the words of nn.Module about every forward
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Attributes", "params_style")]  # else they are called "Variables"
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "labkit"
html_static_path = ["static"]
html_css_files = ["labkit.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "to_start.html"}
html_show_sourcelink = False

CONTENTS = """
```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Documents

docs/which-measure
docs/numerics
docs/torchvision
docs/notation
docs/verdicts
docs/reproduction
docs/clusters
docs/assignments
binder/README
benchmarks/README
CONTRIBUTING
CHANGELOG
```

```{toctree}
:hidden:
:caption: Reference

docs/reference/index
```
"""


def read(app: Any, docname: str, source: list[str]) -> None:
    """The README is the start page: it gets the contents; its link to the theory leads to the reference."""
    if docname == root_doc:
        source[0] = source[0].replace("](labkit/theory)", "](docs/reference/theory/index.md)") + CONTENTS


def follow(app: Any, module: str, name: str) -> str | None:
    """A constant's source is where it is assigned, not where the type of its value comes from."""
    value = getattr(importlib.import_module(module), name, None)
    return None if inspect.isclass(value) or inspect.isfunction(value) or "." in name else module


def setup(app: Any) -> None:
    pages.write(ROOT / "docs" / "reference")
    app.connect("source-read", read)
    app.connect("viewcode-follow-imported", follow)
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("autodoc-process-docstring", docstrings.prepare, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", docstrings.restore, priority=600)
