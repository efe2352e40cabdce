"""The results of a sweep on disk: an SQLite file, one row a point, each there whole or not at all.

    facts    name, value                                  what is swept: experiment, settings, versions
    points   point, kept, error, attempts, seconds, ended

`point` is the JSON of the grid's values and `kept` that of what was kept; pandas reads it with
``read_sql("select * from points", sqlite3.connect(path))``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.headless.versions import versions

_MADE = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists points (
    point text primary key, kept text, error text not null, attempts integer not null,
    seconds real not null, ended text not null
);
"""


class Table:
    """The points that are done, and those that failed.

    Args:
        file: an open SQLite file.
    """

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def check(self, facts: Mapping[str, Any]) -> None:
        """Writes what is swept, or compares it with what is written.

        Args:
            facts: name -> JSON value.

        Raises:
            ValueError: it is another sweep.
        """
        told = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
        before = dict(self._file.execute("select name, value from facts"))
        if other := sorted(n for n in {*before, *told} if before and before.get(n) != told.get(n)):
            parts = "; ".join(f"{n} {before.get(n)} there, {told.get(n)} here" for n in other[:3])
            raise ValueError(f"table: it holds another sweep: {parts}. Name another file")
        with self._file:
            self._file.executemany("insert or ignore into facts values (?, ?)", told.items())

    def rows(self) -> dict[str, tuple[Any, str, int]]:
        """Point -> what was kept, the error ("": none), how often it was tried."""
        found = self._file.execute("select point, kept, error, attempts from points")
        return {point: (json.loads(kept), error, attempts) for point, kept, error, attempts in found}

    def add(self, point: str, kept: Any, error: str, attempts: int, seconds: float) -> None:
        """Writes a point, which is there when this returns.

        Args:
            point: JSON of the grid's values.
            kept: JSON value; None for a failure.
            error: what was raised, in one line; "" where nothing was.
            attempts: how often it was tried.
            seconds: of the last attempt.

        Raises:
            sqlite3.OperationalError: the file cannot be written, as on a full disk.
        """
        told = json.dumps(kept, ensure_ascii=False, allow_nan=False)
        row = (point, told, error, attempts, seconds, datetime.now().astimezone().isoformat("T", "seconds"))
        with self._file:
            self._file.execute("insert or replace into points values (?, ?, ?, ?, ?, ?)", row)


@contextmanager
def opened(path: Path, facts: Mapping[str, Any]) -> Iterator[Table]:
    """Holds a table for one process and one sweep.

    Args:
        path: of the file; made where it is not there.
        facts: all that is the same for its points; versions are added.

    Yields:
        Table.

    Raises:
        ValueError: another process is at work on it, it holds another sweep, or is no table of a sweep.
    """
    try:
        with (
            FileLock(path.with_name(f".{path.name}.lock"), timeout=0),
            closing(sqlite3.connect(path)) as file,
        ):
            file.executescript(_MADE)
            table = Table(file)
            table.check({**facts, "versions": versions()})
            yield table
    except Timeout:
        raise ValueError(f"table: another process is at work on {path}; wait for it, or end it") from None
    except sqlite3.DatabaseError as problem:
        raise ValueError(f"table: {path}: {problem}") from None
