"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.protocol.files import written


def check_writable(path: Path, option: str) -> None:
    """Refuses a path that cannot be written, before anything costly is done.

    Raises:
        ValueError: the folder is missing or not writable, or the path is a folder.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder; name a file in it")
    if not folder.is_dir():
        raise ValueError(f"{option}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"{option}: {path} cannot be written; check its permissions")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that no reader and no interruption ever sees half of it."""
    path = path.resolve()
    if path.exists() and not path.is_file():  # A device or a pipe: it must not be replaced by a file.
        path.write_text(text, encoding="utf-8")
        return
    with written(path) as file:
        file.write(text.encode())
