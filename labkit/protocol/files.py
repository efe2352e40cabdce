"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from labkit.protocol.experiment import Frame


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Writes a file so that no reader, no interruption and no failure of power ever sees half of it.

    Args:
        path: of the file; its folder is there.

    Yields:
        A binary file under another name in the same folder, which takes the name at the end.

    Raises:
        OSError: it cannot be written; what stood there before stays.
    """
    path = path.resolve()
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_frames(path: Path, frames: Sequence[Frame], seconds: float) -> None:
    """Keeps the frames of a run, to the bit, as an .npz.

    Args:
        path: of the file.
        frames: of a run that has ended.
        seconds: that it took.
    """
    facts = [[f.step, f.progress, f.status, f.note, list(f.values)] for f in frames]
    arrays: dict[str, Any] = {
        f"{i}-{j}": value for i, f in enumerate(frames) for j, value in enumerate(f.values.values())
    }
    arrays["facts"] = np.array(json.dumps({"frames": facts, "seconds": seconds}))
    with written(path) as file:
        np.savez(file, **arrays)


def read_frames(path: Path) -> tuple[tuple[Frame, ...], float]:
    """The frames that `write_frames` kept, and their seconds.

    Args:
        path: of the file.

    Returns:
        The frames in their order, and the seconds that the run took.

    Raises:
        ValueError: the file is none of these.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = json.loads(str(archive["facts"]))
            frames = tuple(
                Frame(step, {name: archive[f"{i}-{j}"] for j, name in enumerate(names)}, *facts)
                for i, (step, *facts, names) in enumerate(found["frames"])
            )
    except (KeyError, TypeError, zipfile.BadZipFile, EOFError) as problem:
        raise ValueError(f"{path}: holds no frames of a run ({type(problem).__name__}); delete it") from None
    return frames, float(found["seconds"])
