"""What each preset costs: kept for its settings alone, told before it runs, and of the right size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import labkit.labs
from labkit import cli
from labkit.headless import price, prices
from labkit.headless.plan import plan
from labkit.headless.price import Price
from labkit.labs import LABS, load_lab
from tests.tinylab import DECAY, LAB


@pytest.mark.parametrize("number", LABS)
def test_no_price_is_stale(number: int) -> None:
    """A price of settings that were changed since, or of a preset that is gone."""
    lab = load_lab(number)
    kept = prices._kept(lab.experiments[0].home)["presets"]
    known = {(experiment.name, preset) for experiment in lab.experiments for preset in experiment.presets}
    rows = {(experiment, preset) for experiment, own in kept.items() for preset in own}
    priced = {(name, preset) for name, preset in known if prices.kept_price(lab.experiment(name), preset)}
    assert rows <= priced, f"labkit presets {number} --measure"
    if missing := known - priced:
        pytest.skip(f"{len(missing)} presets are still without a price: labkit presets {number} --measure")


def test_a_price_follows_the_yardstick_and_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of another machine; a price that survives a change of the preset."""
    row = {"mark": prices.mark(DECAY.presets["paper"]), "seconds": 10.0, "bytes": 2**30, "flops": 1e9}
    kept = {"yardstick": 0.5, "presets": {"decay": {"paper": row}}}
    monkeypatch.setattr(prices, "_kept", lambda package: kept)
    monkeypatch.setattr(prices, "yardstick", lambda: 1.5)
    assert prices.price_of(DECAY, "paper") == Price(30.0, 2**30, 1e9)
    assert str(prices.price_of(DECAY, "paper")) == "about 30 s and 1 GiB, 1.0e+09 operations"
    assert prices.price_of(DECAY, "quick") is None
    other = replace(DECAY, presets={"paper": DECAY.presets["paper"].replace(width=3)})
    assert prices.price_of(other, "paper") is None
    same = replace(DECAY, presets={"paper": DECAY.presets["paper"].replace(seed=3)})
    assert prices.price_of(same, "paper") is not None


def test_a_preset_tells_its_price_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--preset paper`, and days later a machine that is still at work."""
    monkeypatch.setattr(price, "free_bytes", lambda device: 2**33)
    lab, lines = replace(LAB, experiments=(DECAY,)), []

    def asked(preset: str, found: Price | None, insist: bool = False) -> list[str]:
        lines.clear()
        tasks = plan(lab, all_claims=True, preset=preset)
        price.approve(tasks, preset, insist=insist, tell=lines.append, progress=lambda *_: None,
                      kept=lambda *_: found)  # fmt: skip
        return lines

    told = "decay at preset paper: about 1.9 min and 1 GiB, 1.0e+12 operations"
    assert asked("paper", Price(114.0, 2**30, 1e12)) == [told]
    assert asked("quick", Price(114.0, 2**30, 1e12)) == []
    assert asked("paper", None) == ["decay at preset paper: no price is kept"]
    with pytest.raises(ValueError, match="preset paper: about 48 h .* more than an hour .--insist"):
        asked("paper", Price(172_800.0, 2**30, 1e12))
    assert len(asked("paper", Price(172_800.0, 2**30, 1e12), insist=True)) == 1


def test_operations_are_counted() -> None:
    """A count that misses what differentiates, or counts a batch as one."""
    counter = price.counter()
    w = torch.randn(5, 3, requires_grad=True)
    with counter:
        torch.autograd.grad((torch.randn(7, 5) @ w).sum(), w)
    assert counter.flops == 2 * 7 * 5 * 3 * 2  # type: ignore[attr-defined]


def test_the_command_lists_each_preset_once(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A preset that cannot be found."""
    monkeypatch.setattr(labkit.labs, "LABS", {7: ("tiny", "tests.tinylab")})
    monkeypatch.setattr(prices, "price_of", lambda *_: Price(3.0, 2**20, None))
    assert cli.main(["presets", "7", "--experiment", "decay"]) == 0
    out = capsys.readouterr().out
    assert out.count("    quick: about 3 s and 1 MiB\n") == 1 == out.count("    paper: about 3 s and 1 MiB\n")
    assert "width=64" in out and "extra" not in out
    assert cli.main(["presets", "7", "--experiment", "decoy"]) == 2
    assert "decoy is in none of these labs; decay, extra" in capsys.readouterr().err


def test_prices_are_measured_and_kept(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that loses what was known, or measures again what is known."""
    file, lab, asked = tmp_path / "prices.json", replace(LAB, experiments=(DECAY,)), []
    monkeypatch.setattr(prices, "data_file", lambda *_: file)
    monkeypatch.setattr(prices, "yardstick", lambda: 0.5)
    monkeypatch.setattr(prices, "ProcessPoolExecutor", _Here)
    monkeypatch.setattr(
        prices, "_measured", lambda e, settings, cache: asked.append(settings.width) or Price(1.0, 2**21, 3.0)
    )
    prices._kept.cache_clear()
    for again, widths in ((False, [64, 8]), (False, []), (True, [64, 8])):
        asked.clear()
        prices.store_prices(lab, again=again)
        assert asked == widths
    monkeypatch.setattr(prices, "yardstick", lambda: 1.0)
    changed = replace(DECAY, presets=DECAY.presets | {"paper": DECAY.presets["paper"].replace(width=3)})
    asked.clear()
    prices.store_prices(replace(lab, experiments=(changed,)))
    kept = json.loads(file.read_text())
    assert asked == [3] and kept["yardstick"] == 1.0
    assert kept["presets"]["decay"]["quick"]["seconds"] == 2.0  # on a machine half as fast
    assert kept["presets"]["decay"]["paper"]["seconds"] == 1.0
    prices._kept.cache_clear()


class _Here:
    """An executor of this process."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: Any) -> None: ...
    def submit(self, function: Any, *args: Any) -> Any:
        result = function(*args)
        return type("Done", (), {"result": lambda self: result})()
