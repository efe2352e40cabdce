"""The command `labkit claims`: what the labs claim, by which rules, and how often it came out."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit.cli.running import named_labs

if TYPE_CHECKING:
    from labkit.protocol.experiment import Lab


def add_claims(commands: Any) -> None:
    claims = commands.add_parser("claims", help="list the claims of all labs", allow_abbrev=False)
    claims.add_argument("--json", action="store_true", help="as JSON")
    claims.set_defaults(command=_claims)


def _claims(args: argparse.Namespace) -> int:
    from labkit.headless.audit import plain

    labs = named_labs(())
    rows = {lab.name: list(_rows(lab)) for lab in labs}
    if args.json:
        every = [plain(row) for own in rows.values() for row in own]
        print(json.dumps(every, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for row in (row for own in rows.values() for row in own):
        print(_told(row))
    for lab in labs:
        print(f"lab {lab.number}, {lab.name}: {_kinds(rows[lab.name])}")
    print("* core: `labkit run LAB` decides these; `labkit run LAB --all-claims` decides all")
    return 0


def _rows(lab: Lab) -> Iterator[dict[str, Any]]:
    """What is known of each claim before any run here, with its replication at the quick preset."""
    from labkit.protocol.replication import replication_of

    owner = {claim.id: experiment for experiment in lab.experiments for claim in experiment.claims}
    for claim in lab.claims:
        experiment = owner[claim.id]
        found = replication_of(claim, experiment, experiment.presets["quick"])
        yield claim.to_dict() | {
            "lab": lab.name, "core": claim.id in lab.core, "experiment": experiment.name,
            "replication": found.to_dict() if found else None,
        }  # fmt: skip


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
