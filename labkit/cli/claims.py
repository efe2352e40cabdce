"""The command `labkit claims`: what the labs claim, by which rules, and how often it came out."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.cli.running import found_labs


def add_claims(commands: Any) -> None:
    claims = commands.add_parser("claims", help="list the claims of the labs", allow_abbrev=False)
    claims.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    claims.add_argument("--json", action="store_true", help="as JSON")
    claims.set_defaults(command=_claims)


def _claims(args: argparse.Namespace) -> int:
    from labkit.headless.listing import listed

    labs = found_labs(args.labs)
    rows = {number: listed(number) for number in labs}
    every = [row for own in rows.values() for row in own]
    if args.json:
        print(json.dumps(every, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for row in every:
        print(_told(row))
    for number, name in labs.items():
        print(f"lab {number}, {name}: {_kinds(rows[number])}")
    print("* core: `labkit run LAB` decides these; `labkit run LAB --all-claims` decides all")
    return 0


def _told(row: Mapping[str, Any]) -> str:
    """A claim as text: what is stated, by which rule it is decided, what is expected and was replicated."""
    found = row["replication"]
    replicated = f"{found['expected']} of {found['blocks']} blocks" if found else "not replicated"
    head = f"{row['id']:>4}{'*' if row['core'] else ' '} {row['kind']} · {row['lab']}/{row['experiment']}"
    because = f", because {row['because']}" if row["because"] else ""
    said = [f"{row['statement']} ({row['source']})"]
    for quantity in row["quantities"]:
        unit = f" ({quantity['unit']})" if quantity["unit"] else ""
        said.append(f"decided by {quantity['name']}{unit}: {quantity['edge']}, {quantity['decided']}")
    said.append(f"expected: {row['expected']}{because}; {replicated}")
    said += [f"comes out otherwise where: {'; '.join(row['fails_in'])}"] if row["fails_in"] else []
    wrapped = (textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 8) for text in said)
    return "\n".join((head, *wrapped))


def _kinds(rows: Sequence[Mapping[str, Any]]) -> str:
    """ "5 theorems, 2 of them vacuous; 6 predictions, 1 expected: fails", never a sum of the kinds."""
    from labkit.protocol.claims import KINDS

    told = []
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        words = Counter(row["expected"] for row in own)
        found = [row["replication"] for row in own if row["replication"]]
        vacuous = sum(2 * one["vacuous"] > one["blocks"] for one in found)
        if count := len(own):
            other = [f"{vacuous} of them vacuous"] if vacuous else []
            other += [f"{words[word]} expected: {word}" for word in words if word != "holds"]
            told.append(", ".join((f"{count} {kind}{'' if count == 1 else 's'}", *other)))
    return "; ".join(told)
