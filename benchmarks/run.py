"""Times labkit beside other libraries, and says how far from the machine's peak it is.

    python benchmarks/run.py                    # every row, half an hour
    python benchmarks/run.py svd-lanczos ntk    # those whose names begin so
    python benchmarks/run.py --write            # and into the table of benchmarks/README.md
    python benchmarks/run.py --plots            # time and memory by n, width, depth, K and k, ten minutes

Ends with 1 where two sides did not give the same answer.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")


def main(arguments: list[str] | None = None) -> int:
    """Runs what is asked for, and prints it line by line."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("names", nargs="*", help="rows, by the beginning of their names (default: all)")
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--write", action="store_true", help="write the table of benchmarks/README.md")
    ask.add_argument("--plots", action="store_true", help="draw benchmarks/*.svg instead")
    asked = ask.parse_args(arguments)
    from benchmarks import page, scaling
    from benchmarks.rows import ROWS
    from benchmarks.turns import measured

    if asked.plots:
        scaling.draw(HERE)
        return 0
    rows = [row for row in ROWS if not asked.names or row.name.startswith(tuple(asked.names))]
    if not rows:
        ask.error(
            f"names: none of {', '.join(row.name for row in ROWS)} begins with {', '.join(asked.names)}"
        )
    if asked.write and len(rows) < len(ROWS):
        ask.error("--write: the table is of one run; leave the names out")
    print(page.machine(asked.threads))
    warnings.simplefilter("ignore")  # what other libraries use is theirs to mend
    lines = []
    for row in rows:
        for line in measured(row, asked.threads, asked.rounds):
            lines.append(line)
            print(page.printed(line), flush=True)
        if asked.write:
            page.write(HERE / "README.md", lines, asked.threads)
    return int(any("apart" in line.note for line in lines if line.value is None))


if __name__ == "__main__":
    sys.exit(main())
