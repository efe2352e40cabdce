"""The command `labkit compare`: what the paper prints, beside a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from labkit.headless.files import check_writable, write_atomically


def add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="put a run beside the numbers that its paper prints", allow_abbrev=False
    )
    compare.add_argument("lab", metavar="LAB", help="a lab's number or name")
    compare.add_argument("run", type=Path, metavar="RUN", help="a folder of `labkit run --folder`")
    compare.add_argument("--json", type=Path, metavar="FILE", help="keep the comparison, without its frames")
    compare.set_defaults(command=_compare)


def _compare(args: argparse.Namespace) -> int:
    if args.json is not None:
        check_writable(args.json, "--json")

    from labkit.headless.compare import records, to_json, told
    from labkit.labs import load_lab

    lab = load_lab(args.lab)
    found = records(lab, args.run)
    for record in found:
        print(told(lab, record))
    if args.json is not None:
        text = json.dumps(to_json(lab, found), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(args.json, text + "\n")
    return 0
