"""Where data are kept between runs."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder for kept data: `folder`, else the variable LABKIT_CACHE, else the user's cache folder.

    That is ~/.cache/labkit (XDG_CACHE_HOME is obeyed), ~/Library/Caches/labkit on macOS, and
    %LOCALAPPDATA%/labkit on Windows. The folder is not created here.
    """
    given = folder or os.environ.get("LABKIT_CACHE")
    try:
        if given:
            return Path(given).expanduser()
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home: a user without an entry in the password file, as in some containers
        base = Path(tempfile.gettempdir())
    return base / "labkit"


def keep(path: Path, arrays: dict[str, Any]) -> bool:
    """Write `arrays` as an .npz at `path`, whole or not at all; False where the folder cannot be written.

    A reader never sees half a file: it is written under another name in the same folder and then renamed.
    """
    unfinished: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.stem, suffix=".part", delete=False
        ) as file:
            unfinished = file.name
            np.savez(file, **arrays)
        os.replace(unfinished, path)
    except OSError:
        if unfinished is not None:
            Path(unfinished).unlink(missing_ok=True)
        return False
    return True
