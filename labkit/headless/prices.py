"""What each preset costs, told before it runs: found once (`labkit presets --measure`), kept beside its lab.

    {"yardstick": 0.21,
     "presets": {"alignment": {"paper": {"mark": "…", "seconds": 1e6, "bytes": 1e9, "flops": 1e17}, …}}}

The *mark* is of the settings; a price with another mark is stale, and is not told. The *yardstick* is the
time of one fixed small training on the machine that measured: here it is timed again, and seconds go with it.
Operations are those of torch's matrix products and convolutions.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labkit.headless.begun import price_of_beginning
from labkit.headless.files import write_atomically
from labkit.headless.price import MIB, Price
from labkit.protocol.experiment import Experiment, Lab, experiment_mode
from labkit.protocol.replication import data_file

FILE = "prices.json"
# Data sets that are downloaded at first use: training images, side, channels, classes.
SHAPES = {
    "mnist": (60_000, 28, 1, 10), "fashion-mnist": (60_000, 28, 1, 10), "cifar10": (50_000, 32, 3, 10),
    "cifar100": (50_000, 32, 3, 100),
}  # fmt: skip


def price_of(experiment: Experiment, preset: str) -> Price | None:
    """What a preset costs on this machine.

    Args:
        experiment: of a lab.
        preset: its name.

    Returns:
        Price, or None where none is kept of these settings.
    """
    found = kept_price(experiment, preset)
    if found is None:
        return None
    return found.times(yardstick() / _kept(experiment.home)["yardstick"])


def kept_price(experiment: Experiment, preset: str) -> Price | None:
    """What a preset costs on the machine that measured it.

    Args:
        experiment: of a lab.
        preset: its name.

    Returns:
        Price, or None where none is kept of these settings.
    """
    found = _kept(experiment.home)["presets"].get(experiment.name, {}).get(preset)
    if found is None or found["mark"] != mark(experiment.presets[preset]):
        return None
    return Price(*(found.get(name) for name in ("seconds", "bytes", "flops", "longest")))


def mark(settings: Any) -> str:
    """A hash of settings, seed and device apart.

    Args:
        settings: of a preset.

    Returns:
        Hexadecimal digits.
    """
    values = {k: v for k, v in settings.to_dict().items() if k not in ("seed", "device")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def yardstick() -> float:
    """Seconds that one fixed small training takes here, on one core."""
    import torch
    from torch import nn

    x, y = torch.linspace(-1, 1, 64 * 64).view(64, 64), torch.zeros(64, 10)
    times = []
    with experiment_mode(), torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
        for _ in range(16):  # short ones, of which one has a core to itself
            start = time.process_time()
            for _ in range(30):
                for p, g in zip(
                    net.parameters(),
                    torch.autograd.grad((net(x) - y).square().mean(), list(net.parameters())),
                    strict=True,
                ):
                    p.data.sub_(g, alpha=1e-3)
            times.append(time.process_time() - start)
    return 5 * min(times)


@lru_cache(maxsize=16)
def _kept(package: str) -> dict[str, Any]:
    path = data_file(package, FILE) if package else None
    if path is None or not path.is_file():
        return {"yardstick": 1.0, "presets": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def store_prices(
    lab: Lab,
    *,
    only: Sequence[str] = (),
    again: bool = False,
    data: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Measures what the presets of a lab cost, and keeps it in its package.

    Data sets that would be downloaded, and are not kept here, are stood in for by noise of their shape.

    Args:
        lab: of a package of its own.
        only: names of experiments; all when empty.
        again: also what is kept already, as on another machine.
        data: the folder of data sets that are kept here.
        tell: is given a line a preset.
    """
    package, here = lab.experiments[0].home, yardstick()
    path, kept = data_file(package, FILE), _kept(package)
    assert path is not None
    found = {
        experiment.name: {
            name: old
            | {
                unit: _short(old[unit] * here / kept["yardstick"])
                for unit in ("seconds", "longest")
                if old.get(unit) is not None
            }
            for name, settings in experiment.presets.items()
            if (old := kept["presets"].get(experiment.name, {}).get(name, {})).get("mark") == mark(settings)
        }
        for experiment in lab.experiments
    }
    # A process for each: what it takes at its peak is its own.
    context = multiprocessing.get_context("spawn")
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, context, max_tasks_per_child=1) as one,
    ):
        asked = [
            (experiment, name, settings)
            for experiment in lab.experiments
            for name, settings in experiment.presets.items()
            if (not only or experiment.name in only) and (again or name not in found[experiment.name])
        ]
        for experiment, name, settings in sorted(asked, key=lambda one: one[1] == "quick"):
            _stand_in(Path(folder), getattr(settings, "dataset", ""), data)
            cost = one.submit(_measured, experiment, settings, folder).result()
            tell(f"{experiment.name} {name}: {cost or 'no price'}")
            if cost is not None:
                found[experiment.name][name] = {
                    "mark": mark(settings), "seconds": _short(cost.seconds),
                    "bytes": _short(max(cost.bytes, MIB)), "flops": _short(cost.flops),
                    "longest": _short(cost.longest),
                }  # fmt: skip
                _write(path, here, found)


def _measured(experiment: Experiment, settings: Any, cache: str) -> Price | None:
    os.environ["LABKIT_CACHE"] = cache
    quick = experiment.presets["quick"]
    grown = [
        name for name, knob in settings.knobs().items()
        if knob.type in (int, float) and name != "seed"
        and 0 < getattr(quick, name) < getattr(settings, name)
    ]  # fmt: skip
    return price_of_beginning(experiment, settings, grown)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _write(path: Path, here: float, found: Mapping[str, Mapping[str, Any]]) -> None:
    rows = []
    for name, own in found.items():
        lines = [f"  {json.dumps(preset)}: {json.dumps(row)}" for preset, row in own.items()]
        rows.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    write_atomically(path, f'{{"yardstick": {here:.4g},\n"presets": {{\n' + ",\n".join(rows) + "\n}}\n")
    _kept.cache_clear()


def _stand_in(folder: Path, name: str, data: Path | None) -> None:
    """A data set that is kept here, or noise of its shape, on which a training may end otherwise."""
    import numpy as np

    file = folder / f"{name}.npz"
    if name not in SHAPES or file.exists():
        return
    if data and (own := data / file.name).is_file():
        shutil.copyfile(own, file)
        return
    n, side, channels, classes = SHAPES[name]
    rng, arrays = np.random.default_rng(0), {}
    for part, size in (("train", n), ("test", 10_000)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (size, side, side, channels), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(size).astype(np.uint8) % classes
    np.savez(file, allow_pickle=False, **arrays)
