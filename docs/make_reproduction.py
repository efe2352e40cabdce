"""Writes the tables of docs/reproduction.md and docs/clusters.md that code can write.

    python docs/make_reproduction.py [--check]

Published numbers come from `published.csv` of each lab; ours from docs/results, where `labkit compare LAB RUN
--json docs/results/LAB-NAME.json` keeps a run; prices from `prices.json` of each lab. `--check` writes
nothing, and says whether the pages are as they would be written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from labkit.headless.compare import Record, compared, differences, nearest, records
from labkit.headless.price import duration
from labkit.headless.prices import kept_price
from labkit.labs import LABS, load_lab
from labkit.protocol.experiment import Experiment, Lab
from labkit.protocol.published import Published, published
from labkit.protocol.shortage import in_bytes

DOCS = Path(__file__).parent
OWN_TABLE = {"jacobian"}  # whose published numbers stand in a table of their own
RATE = 1e13  # operations a second that a GPU sustains on these networks in float32, as we assume


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    reproduction = DOCS / "reproduction.md"
    text = reproduction.read_text(encoding="utf-8")
    for number in LABS:
        lab = load_lab(number)
        if published(lab.experiments[0].home) or _kept(lab):
            text = _between(text, f"published {lab.name}", "\n".join(_beside(lab)))
    clusters = DOCS / "clusters.md"
    prices = _between(clusters.read_text(encoding="utf-8"), "prices", "\n".join(_prices()))
    return {reproduction: text, clusters: prices}


def _between(text: str, name: str, inside: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{begin} and {end} must each stand once on their page")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{inside}\n{end}", text)


def _kept(lab: Lab) -> dict[str, list[tuple[Experiment, Record]]]:
    """The runs in docs/results by the paper's setting that is nearest to each."""
    found: dict[str, list[tuple[Experiment, Record]]] = {}
    for file in sorted((DOCS / "results").glob(f"{lab.name}-*.json")):
        for record in records(lab, file):
            experiment = lab.experiment(record.experiment)
            found.setdefault(nearest(experiment, record), []).append((experiment, record))
    return found


def _beside(lab: Lab) -> Iterator[str]:
    """The published numbers of a lab, with those of ours that are nearest to each of the paper's settings."""
    rows, found = published(lab.experiments[0].home), _kept(lab)
    for preset in dict.fromkeys([*(row.preset for row in rows), *found]):
        own, runs = [row for row in rows if row.preset == preset], found.get(preset, [])
        beside = [run for run in runs if compared(*run, preset)]
        if lab.name in OWN_TABLE:
            own = [
                row for row in own if any(row in (c.row for c in compared(*run, preset)) for run in beside)
            ]
        if own:
            yield from _table(preset, own, beside)
        elif lab.name in OWN_TABLE:
            yield f"No number of ours yet beside those of `{preset}`."
        for experiment, record in runs:
            yield from _run(experiment, record, preset)
        yield ""


def _run(experiment: Experiment, record: Record, preset: str) -> Iterator[str]:
    """When and where a run was made, in what it differs, and what it was judged by."""
    off = differences(experiment, record, preset)
    other = ", ".join(f"{name} {b} ({a})" for name, (a, b) in off.items())
    told = f"{record.ended}, {duration(record.seconds)} on {record.machine}"
    settings = (
        f"In brackets what `{preset}` has: {other}" if other else f"The settings are those of `{preset}`"
    )
    yield f"\n`{experiment.name}`: {told}. {settings}.\n"
    for id, word in record.verdicts.items():
        yield f"- {id} *{word}*. {record.measured.get(id, '')}".rstrip()


def _table(preset: str, rows: list[Published], runs: list[tuple[Experiment, Record]]) -> Iterator[str]:
    names = [f"{experiment.name}, ours (seeds) | difference" for experiment, _ in runs] or ["ours"]
    yield f"| {f'`{preset}`' if preset else 'no preset'} | published | {' | '.join(names)} |"
    yield "| --- " * (2 + (2 * len(runs) or 1)) + "|"
    ours = [{one.row: one for one in compared(*pair, preset)} for pair in runs]
    for row in rows:
        cells = [f"{row.value:.4g}" + (f" ± {row.spread:g}" if row.spread is not None else "")]
        for known in ours:
            cells += known[row].told()[1:] if row in known else ("–", "")
        yield f"| {row.source}, {row.quantity}: {row.case} | {' | '.join(cells if ours else [*cells, '–'])} |"


def _prices() -> Iterator[str]:
    yield "| lab | preset | one core | memory | operations | one GPU |"
    yield "| --- | --- | --- | --- | --- | --- |"
    total = 0.0
    for number in LABS:
        lab = load_lab(number)
        for experiment in lab.experiments:
            for preset in experiment.presets:
                cost = kept_price(experiment, preset)
                if preset == "quick" or preset.startswith("afternoon") or cost is None:
                    continue
                total += cost.flops or 0.0
                counted = (f"{cost.flops:.1e}", duration(cost.flops / RATE)) if cost.flops else ("–", "–")
                cells = (cost.time, in_bytes(cost.bytes), *counted)
                yield f"| {number} | {experiment.name} {preset} | {' | '.join(cells)} |"
    yield f"| all | | | | {total:.1e} | {duration(total / RATE)} |"


def main() -> int:
    stale = {path: text for path, text in pages().items() if path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        sys.stdout.write(f"{path}\n")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
