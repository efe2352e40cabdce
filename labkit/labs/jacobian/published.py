"""What paper 4 prints of the share of labels on I (Tables 1–18), beside runs, each with its chance."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from labkit.protocol.experiment import Run
from labkit.theory import jacobian as theory

RANK = 50
# Dataset -> its name, rows of its training Jacobian n·K, classes.
SETS = {
    "cifar10": ("CIFAR-10", 500_000, 10),
    "mnist": ("MNIST", 600_000, 10),
    "cifar10-3class": ("3 classes of CIFAR-10", 29_997, 3),
}
TAKEN = {-1.0: "initial", 0.0: "dip", 1.0: "final"}
Place = tuple[str, str, str, str]  # part, optimizer, noise, jacobian


@cache
def published() -> tuple[dict[str, str], ...]:
    """The rows that the paper prints: dataset, part, optimizer, noise, jacobian, share of y, share of r₀."""
    with files("labkit.labs.jacobian").joinpath("published.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def comparison(*runs: Run) -> str:
    """Published shares ‖Π_I y‖/‖y‖ (of r₀ in brackets) beside those of runs, as a Markdown table.

    Args:
        runs: of `alignment` and of `corruption`, at any settings; ours is the mean over seeds.

    Returns:
        A table with a row for each Jacobian that the paper or a run has; its last rows are both levels of
        chance, r/nK, and what differs.
    """
    columns = []
    for key, (name, size, classes) in SETS.items():
        there = [row for row in published() if row["dataset"] == key]
        found = {_place(row): (float(row["share"]), float(row["residual"])) for row in there}
        words = "ResNet20, SGD in batches of 128, 100 to 800 epochs, one run"
        columns.append((name, found, _facts(RANK, size, classes, words)))
    if runs:
        one, found = runs[0].settings, {key: value for run in runs for key, value in _measured(run).items()}
        words = f"{one.width}–{one.width} ReLU, {one.dataset}, n = {one.n}, full batch, {one.seeds} seeds"
        columns.append(("ours", found, _facts(one.rank, one.n * one.classes, one.classes, words)))
    places = sorted({place for _, shares, _ in columns for place in shares}, key=_order)
    lines = [
        f"| {' | '.join(('Jacobian of', *(name for name, _, _ in columns)))} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for part, optimizer, noise, jacobian in places:
        cells = [_cell(shares.get((part, optimizer, noise, jacobian))) for _, shares, _ in columns]
        adam = ", Adam" if optimizer == "adam" else ""
        lines.append(f"| {part}, {float(noise):.0%} wrong{adam}, {jacobian} | {' | '.join(cells)} |")
    for number, name in enumerate(("chance, one-hot labels", "chance, any direction", "r / nK", "settings")):
        lines.append(f"| *{name}* | {' | '.join(facts[number] for _, _, facts in columns)} |")
    return "\n".join(lines)


def _cell(pair: tuple[float, float] | None) -> str:
    return "–" if pair is None else f"{pair[0]:.2f} ({pair[1]:.2f})"


def _place(row: dict[str, str]) -> Place:
    return row["part"], row["optimizer"], row["noise"], row["jacobian"]


def _order(place: Place) -> tuple[object, ...]:
    part, optimizer, noise, jacobian = place
    return (
        part != "train",
        optimizer == "adam",
        noise,
        ("initial", "dip", "epoch 200", "final").index(jacobian),
    )


def _facts(rank: int, size: int, classes: int, words: str) -> tuple[str, ...]:
    chances = theory.one_hot_chance_share(rank, size, classes), theory.chance_share(rank, size)
    return *(f"{chance:.2f}" for chance in chances), f"{rank / size:.2g}", words


def _measured(run: Run) -> dict[Place, tuple[float, float]]:
    """Means over seeds of the shares of y and of r₀."""
    if run.experiment.name == "corruption":
        settings = run.settings
        place = settings.images, "sgd", f"{settings.label_noise:.2f}", TAKEN.get(settings.moment, "between")
        return {place: (float(run.last("share").mean()), float(run.last("residual_share").mean()))}
    found = {}
    for jacobian in ("initial", "final"):
        pairs = zip(
            run.last(jacobian).mean(axis=0), run.last(f"{jacobian}_residual").mean(axis=0), strict=True
        )
        for level, pair in zip(run.prediction["levels"], pairs, strict=True):
            found["train", "sgd", f"{level:.2f}", jacobian] = float(pair[0]), float(pair[1])
    return found
