"""What paper 4 prints of the share of labels on I (Tables 1–18), beside runs, each with its chance."""

from __future__ import annotations

from labkit.protocol.experiment import Run
from labkit.protocol.published import Published
from labkit.protocol.published import published as read
from labkit.theory import jacobian as theory

RANK = 50
# Preset -> its name, rows of its training Jacobian n·K, classes.
SETS = {
    "paper": ("CIFAR-10", 500_000, 10),
    "mnist": ("MNIST", 600_000, 10),
    "three-classes": ("3 classes of CIFAR-10", 29_997, 3),
}
QUANTITIES = ("share of y", "share of r₀")
MOMENTS = ("initial", "dip", "epoch 200", "final")


def published() -> tuple[Published, ...]:
    """The numbers that the paper prints."""
    return read(__package__ or "")


def comparison(*runs: Run) -> str:
    """Published shares ‖Π_I y‖/‖y‖ (of r₀ in brackets) beside those of runs, as a Markdown table.

    Args:
        runs: of `alignment` and of `corruption`, at any settings; ours is the mean over seeds.

    Returns:
        A table with a row for each Jacobian that the paper has; its last rows are both levels of chance,
        r/nK, and what differs.
    """
    columns = []
    for key, (name, size, classes) in SETS.items():
        found = {(row.case, row.quantity): row.value for row in published() if row.preset == key}
        words = "ResNet20, SGD in batches of 128, 100 to 800 epochs, one run"
        columns.append((name, found, _facts(RANK, size, classes, words)))
    if runs:
        one = runs[0].settings
        found = {
            (row.case, row.quantity): float(measured.mean())
            for row in published() for run in runs if (measured := row.measured(run)) is not None
        }  # fmt: skip
        words = f"{one.width}–{one.width} ReLU, {one.dataset}, n = {one.n}, full batch, {one.seeds} seeds"
        columns.append(("ours", found, _facts(one.rank, one.n * one.classes, one.classes, words)))
    cases = sorted({row.case for row in published()}, key=_order)
    lines = [
        f"| {' | '.join(('Jacobian of', *(name for name, _, _ in columns)))} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for case in cases:
        lines.append(f"| {case} | {' | '.join(_cell(shares, case) for _, shares, _ in columns)} |")
    for number, name in enumerate(("chance, one-hot labels", "chance, any direction", "r / nK", "settings")):
        lines.append(f"| *{name}* | {' | '.join(facts[number] for _, _, facts in columns)} |")
    return "\n".join(lines)


def _cell(shares: dict[tuple[str, str], float], case: str) -> str:
    y, r0 = (shares.get((case, quantity)) for quantity in QUANTITIES)
    if y is None:
        return "–"
    return f"{y:.2f}" if r0 is None else f"{y:.2f} ({r0:.2f})"


def _order(case: str) -> tuple[object, ...]:
    part, noise, *_, moment = case.split(", ")
    return part != "train", "Adam" in case, float(noise.split("%")[0]), MOMENTS.index(moment)


def _facts(rank: int, size: int, classes: int, words: str) -> tuple[str, ...]:
    chances = theory.one_hot_chance_share(rank, size, classes), theory.chance_share(rank, size)
    return *(f"{chance:.2f}" for chance in chances), f"{rank / size:.2g}", words
