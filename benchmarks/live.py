"""What a live picture costs, and how fast the panel answers.

    python benchmarks/live.py

Prints wall-clock and processor time a frame (the second is what counts on a busy machine), the cost of moving
a prediction, Stop's latency, the time from a released slider to the first frame, and live steps a second
against the bare loop.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from labkit.figures import Chart, Measured, Predicted, caption
from labkit.figures import Panel as Axes
from labkit.live import Canvas, Panel
from labkit.protocol.experiment import Experiment, Frame, drain, series
from labkit.protocol.settings import Settings, knob


@dataclass(frozen=True)
class Bench(Settings):
    rate: float = knob(1.0, "decay rate", slider=(0.1, 5.0), step=0.1)
    steps: int = knob(3000, "steps", bounds=(1, None))


SPENT: list[float] = []  # processor time at the first and the last step of each run
NAMES = ("information space", "nuisance space", "test error")


def predict(setup: Bench) -> dict[str, np.ndarray]:
    steps = np.linspace(0, setup.steps, 200)
    return {
        "steps": steps,
        **{n: np.exp(-setup.rate * steps / setup.steps / (i + 1)) for i, n in enumerate(NAMES)},
    }


def run(setup: Bench, prediction: object = None) -> Iterator[Frame]:
    """As much arithmetic a step as a small network: about a millisecond."""
    draw = np.random.default_rng(setup.seed)
    weights = draw.standard_normal((256, 256)) / 16
    data = draw.standard_normal((256, 192))
    for step in range(setup.steps + 1):
        data = np.tanh(weights @ data)
        data += 1e-3
        if step in (0, setup.steps):
            SPENT.append(time.process_time())
        if step % 10 == 0:
            noise = 1 + 0.05 * draw.standard_normal((len(NAMES), setup.seeds))
            values = {
                name: np.exp(-setup.rate * step / setup.steps / (i + 1)) * noise[i]
                for i, name in enumerate(NAMES)
            }
            yield Frame(step, values, step / setup.steps, "done" if step == setup.steps else "running")


def figure(frames: Any, prediction: Any, settings: Any = None) -> Chart:
    panels = []
    for scale in ("log", "linear"):
        marks: list[Any] = []
        for color, name in enumerate(NAMES):
            if prediction:
                marks.append(Predicted(prediction["steps"], prediction[name], name, color))
            steps, values = series(frames, name)
            marks.append(Measured(steps, values.T if len(values) else np.zeros((0, 0)), name, color))
        panels.append(Axes("Residual energy", marks, "step", "share", yscale=scale))
    return Chart(panels, caption("The residual energy, and its prediction.", settings))


BENCH = Experiment(
    "bench", "Bench", Bench, {"quick": Bench()}, lambda s: s, predict, run, figure, (), ("rate",)
)


def timed(act: Callable[[], Any]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.thread_time()
    act()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.thread_time() - processor)


def show(name: str, pairs: list[tuple[float, float]]) -> None:
    wall, processor = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:<44} {wall:7.1f} ms wall   {processor:7.1f} ms processor   (median of {len(pairs)})")


def pictures() -> None:
    settings = Bench()
    done = drain(BENCH, settings)
    canvas = Canvas()
    charts = [figure(done.frames[:i], done.prediction, (), settings) for i in range(20, 300, 3)]
    show("first frame", [timed(lambda: canvas.frame(charts[0]))])
    show("a frame of training, 900 x 340", [timed(lambda c=c: canvas.frame(c)) for c in charts[1:]])
    print(f"{'full redraws in between':<44} {canvas.redraws - 1}")
    moved = []
    for rate in np.linspace(1.0, 1.5, 30):
        other = settings.replace(rate=float(rate))
        chart = figure((), predict(other), (), other)
        moved.append(timed(lambda c=chart: canvas.frame(c)))
    show("a prediction moved by a slider", moved[1:])
    show("a full redraw", [timed(lambda: (canvas.reset(), canvas.frame(charts[5]))) for _ in range(8)])
    show("the sharp picture at rest", [timed(lambda: canvas.sharp(charts[5])) for _ in range(5)])


def answers() -> None:
    panel = Panel(BENCH)
    panel.wait()
    shown = threading.Event()
    panel.image.observe(lambda change: shown.set() if panel.run.frames else None, "value")
    first, stops = [], []
    for i in range(8):
        shown.clear()
        begun = time.perf_counter()
        panel.controls.widgets["rate"].value = 1.0 + 0.1 * (i + 1)
        shown.wait(10)
        first.append(1e3 * (time.perf_counter() - begun))
        time.sleep(0.5)
        begun = time.perf_counter()
        panel.stop_button.click()
        while "Stopped at" not in panel.status_line.value:
            time.sleep(0.002)
        stops.append(1e3 * (time.perf_counter() - begun))
        panel.wait()
    print(
        f"{'slider moved -> first frame of the new run':<44} {statistics.median(first):7.0f} ms"
        f" (max {max(first):.0f})"
    )
    print(f"{'Stop -> stopped':<44} {statistics.median(stops):7.0f} ms (max {max(stops):.0f})")
    panel.close()


def speed() -> None:
    """Bare and live alternated, first step to last, by processor time, which survives a busy machine."""
    ratios = []
    for _ in range(3):
        SPENT.clear()
        for _frame in run(Bench(steps=20_000)):
            pass
        panel = Panel(BENCH, Bench(steps=20_000))
        panel.wait()
        panel.train_button.click()
        panel.wait()
        panel.close()
        begun, ended, live_begun, live_ended = SPENT
        ratios.append((ended - begun) / (live_ended - live_begun))
    print(
        f"{'live against the bare loop, steps a second':<44} {statistics.median(ratios):7.2f}x"
        f"  {[round(ratio, 2) for ratio in ratios]}"
    )


if __name__ == "__main__":
    pictures()
    answers()
    speed()
