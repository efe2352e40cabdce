"""The drawing grammar: what is drawn, that nothing overlaps, and that nothing odd in the data breaks it."""

from __future__ import annotations

import io
import itertools
import threading
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from labkit.figures import (
    Bound,
    Chart,
    Drawing,
    Earlier,
    Histogram,
    Level,
    Measured,
    Note,
    Panel,
    Points,
    Predicted,
    Raster,
    caption,
    mean_and_range,
)
from labkit.figures.layout import text_width, wrap
from labkit.figures.letters import KeptLetters
from labkit.figures.palette import COLORS, FONT, TICK

T = np.arange(0.0, 50.0)
CURVE = np.exp(-T / 10)
SEEDS = CURVE * np.linspace(0.8, 1.2, 3)[:, None]
MARKS = {
    "predicted": Predicted(T, CURVE, "a"),
    "measured": Measured(T, SEEDS, "a"),
    "points": Points(T[:5], SEEDS[:, :5], "b", 1),
    "bound": Bound(T, 2 * CURVE, "c", 2),
    "bound below": Bound(T, 0.5 * CURVE, "c", 2, side="below"),
    "earlier": Earlier(T, SEEDS),
    "level": Level(0.5, "half"),
    "vertical": Level(10.0, "cut", axis="x"),
    "histogram": Histogram(np.linspace(0, 1, 11), np.arange(10.0), "h"),
    "raster": Raster(np.arange(12.0).reshape(3, 4), diverging=True, ylabels=("cat", "aeroplane", "ship")),
    "note": Note("here"),
}
ODD = {
    "empty": np.zeros(0),
    "one": np.array([1.0]),
    "zeros": np.zeros(9),
    "negative": -np.arange(9.0),
    "nan": np.full(9, np.nan),
    "inf": np.array([1.0, np.inf, -np.inf, np.nan, 0.0, 1e308, 5e-324, -1e308, 2.0]),
    "huge span": np.logspace(-300, 300, 9),
    "constant": np.full(9, 3.0),
    "tiny differences": 1 + 1e-12 * np.arange(9),
}


def pixels(chart: Chart, **size: Any) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(chart.png(**size))).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
def test_every_mark_leaves_ink_on_every_scale(name: str, scale: str) -> None:
    """Catches: a mark that is silently not drawn."""
    bare = Chart([Panel("", [], xlim=(0, 50), ylim=(0.01, 10), yscale=scale)])
    full = Chart([Panel("", [MARKS[name]], xlim=(0, 50), ylim=(0.01, 10), yscale=scale, legend=False)])
    assert np.abs(pixels(bare) - pixels(full)).max() > 20


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("scale", ["linear", "log", "log2", "symlog"])
def test_odd_numbers_draw_without_a_warning(name: str, scale: str) -> None:
    """Catches: a zero on a log axis, a NaN or an infinity that warns on stderr, or ends the lesson."""
    x, y = np.arange(float(ODD[name].size)), ODD[name]
    marks = [kind(x, y, "k") for kind in (Predicted, Measured, Points, Bound, Earlier)]
    for panel in (Panel("p", marks, "x", "y", yscale=scale), Panel("p", [Measured(y, x)], xscale=scale)):
        assert pixels(Chart([panel])).shape == (340, 900, 3)


def test_a_chart_with_no_panel_no_mark_or_one_seed_still_draws() -> None:
    """Catches: the figure of a run that has not begun."""
    for chart in (Chart([]), Chart([Panel("")]), Chart([Panel("a", [Measured([], np.zeros((0, 0)), "x")])])):
        assert pixels(chart).shape == (340, 900, 3)


def test_a_prediction_is_broken_and_a_measurement_is_not() -> None:
    """Catches: theory and experiment that cannot be told apart on a black-and-white print."""

    def gaps(mark: Any) -> int:
        image = pixels(Chart([Panel("", [mark], xlim=(0, 49), ylim=(-1, 1), legend=False)]))
        plan = Drawing(Chart([Panel("", [mark])])).layout.cells[0]
        row = 340 - round(plan.bottom + plan.height / 2)
        line = (
            image[row - 2 : row + 3, round(plan.left) + 5 : round(plan.left + plan.width) - 8]
            .sum(axis=2)
            .min(axis=0)
        )
        return int(np.count_nonzero(np.diff((line < 500).astype(int)) == -1))

    assert gaps(Predicted(T, 0 * T)) > 20 and gaps(Measured(T, 0 * T)) == 0


def test_the_band_spans_the_seeds_and_skips_what_is_not_finite() -> None:
    """Catches: one diverged seed that takes the mean and the band of the others with it."""
    mean, low, high = mean_and_range(np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]]))
    assert mean.tolist()[:2] == [2.0, 2.0] and np.isnan(mean[2])
    assert (low[0], high[0], low[1], high[1]) == (1.0, 3.0, 2.0, 2.0)


def test_the_axes_stand_still_while_data_arrive_and_earlier_runs_come() -> None:
    """Catches: a picture that jumps from frame to frame."""

    def cells(count: int, *more: Any) -> Any:
        seen = Measured(T[:count], SEEDS[:, :count], "loss")
        marks = [Predicted(T, CURVE, "loss"), seen, *more]
        return Drawing(Chart([Panel("a", marks, "x", "y"), Panel("b", marks)], "width 3")).layout.cells

    first = Measured([], np.zeros((0, 1)).T, "loss")
    begun = [Predicted(T, CURVE, "loss"), first]
    start = Drawing(Chart([Panel("a", begun, "x", "y"), Panel("b", begun)], "width 3")).layout.cells
    places = [[(c.left, c.bottom, c.width, c.height) for c in one] for one in (start, cells(1), cells(50))]
    assert places[0] == places[1] == places[2]
    with_earlier = cells(50, Earlier(T, CURVE), Earlier(T, CURVE))
    assert [(c.left, c.bottom, c.width, c.height) for c in with_earlier] == places[0]


def with_runs(names: list[str]) -> Chart:
    """A chart with a grey curve of its own, over those of earlier runs with two curves in both panels."""

    def made(run: int) -> Chart:
        panels = []
        for scale in (1.0, 2.0):
            mine = [Measured(T, scale * (run + k) * SEEDS, "trained") for k in (1, 1.5)]
            theory = [Predicted(T, scale * CURVE, "theory"), Measured(T[:0], T[:0], "not there yet")]
            panels.append(Panel("energy", [Earlier(T, 0.1 * CURVE, "before"), *mine, *theory]))
        return Chart(panels, "width 8 · seeds 0–2")

    return made(0).over([(name, made(run)) for run, name in enumerate(names, start=1)])


def test_earlier_runs_are_told_apart_by_number_name_and_stroke() -> None:
    """Catches: two grey curves of which nobody can say which run they are, in a file or on grey paper."""
    names = ["width 16", "width 64"]
    chart = with_runs(names)
    assert chart.runs == {1: "width 16", 2: "width 64"}
    greys = [mark for mark in chart.panels[1].marks if isinstance(mark, Earlier)]
    assert [(mark.run, mark.name) for mark in greys] == [*2 * [(1, names[0])], *2 * [(2, names[1])], (0, "")]
    assert [round(mark.y[0, 0] / SEEDS[0, 0]) for mark in greys[:4]] == [4, 5, 6, 7]
    figure = chart.render()
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["1", "1", "2", "2"]
    dashes = [line.get_linestyle() for line in figure.axes[0].lines[:5]]
    assert len({str(dash) for dash in dashes[:4]}) == 2
    key = [text.get_text() for text in figure.texts]
    assert "1: width 16" in key and "2: width 64" in key
    assert chart.provenance()["Earlier runs"] == "1: width 16; 2: width 64"
    assert "Earlier runs: 1: width 16" in chart.svg().decode()


def test_two_predictions_of_one_colour_are_told_apart_by_their_strokes() -> None:
    """Catches: two dashed powers in ink, and a legend with the same sample before both; a live frame in which
    one has come before the other.
    """

    def strokes(lines: Any) -> list[Any]:
        return [tuple(line._dash_pattern[1] or ()) for line in lines]

    quarter, half = (Predicted(T, CURVE**power, f"m^{power}", "ink") for power in (0.25, 0.5))
    others = [Predicted(T, CURVE, "a", 1), Measured(T, SEEDS, "m^0.5", 1), Predicted(T, CURVE, color="ink")]
    drawing = Drawing(Chart([Panel("", [half, *others])]), live=True)
    first = drawing.drawers[0][0].line
    (plain,) = {*strokes([first, drawing.legends[0]])}
    drawing.refresh(Chart([Panel("", [quarter, half, *others])]))
    lines = [drawn.line for drawn in drawing.drawers[0]]
    assert strokes(lines)[0] == strokes(lines)[2] == strokes(lines)[4] == plain
    second = strokes(lines)[1]
    assert second not in (plain, ()) and lines[1] is first
    assert strokes(one for one in drawing.legends if isinstance(one, Line2D))[:2] == [plain, second]


def test_an_earlier_run_is_drawn_where_the_same_is_shown() -> None:
    """Catches: a grey curve on axes that mean something else; one lost where a title tells a number; points
    that are joined.
    """

    def made(title: str, places: list[tuple[float, str]], *more: Panel) -> Chart:
        points = Points(T[:3], CURVE[:3], "found", line=False)
        loss = Panel(f"Loss, m = {title}", [Measured(T, CURVE)], xlabel="step")
        return Chart([*more, loss, Panel("By width", [points], xticks=places)])

    ticks = [(0.0, "16"), (1.0, "32")]
    for other, shown in (
        (made("9", ticks), [1, 1]),
        (made("9", [(0.0, "8"), (1.0, "16")]), [1, 0]),  # the same places, other widths
        (made("9", [(0.0, "16"), (2.0, "64")]), [1, 1]),
        (made("9", ticks, Panel("By depth", [Points(T[:3], CURVE[:3])])), [0, 1]),  # "By depth" is no loss
        (made("5", ticks, Panel("By depth", [Points(T[:3], CURVE[:3])])), [1, 1]),
    ):
        chart = made("5", ticks).over([("other", other)])
        greys = [[mark for mark in panel.marks if isinstance(mark, Earlier)] for panel in chart.panels]
        assert [len(marks) for marks in greys] == shown
    axes = chart.render().axes[1]
    assert axes.lines[0].get_linestyle() == "None" and axes.lines[0].get_marker() == "o"
    assert not greys[1][0].line and [text.get_text() for text in axes.texts] == ["1"]


@pytest.mark.parametrize("width", [500, 900])
def test_many_runs_with_long_names_stay_in_one_row(width: float) -> None:
    """Catches: names over the caption or out of the picture, or runs that the key leaves out."""
    names = [f"width {16 * k}, learning rate {k / 7:.4g}, label noise 0.{k}" for k in range(1, 6)]
    chart = with_runs(names)
    figure = chart.render(width)
    figure.canvas.draw()
    found = [text for text in figure.texts if text.get_text()[:2] in {f"{k}:" for k in range(1, 6)}]
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in found]  # type: ignore[attr-defined]
    assert len({round(box.y0) for box in boxes}) == 1 and max(box.x1 for box in boxes) <= width + 1
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert len(found) == 5 and list(chart.runs.values()) == names


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_no_two_texts_overlap(count: int) -> None:
    """Catches: a legend over a title, a caption over an axis label, ticks over the next panel."""
    labels = ["information space", "nuisance space", "the whole of the test set", "half"]
    marks = [Measured(T, SEEDS * (i + 1), name, i) for i, name in enumerate(labels)]
    panels = [
        Panel(f"Residual energy of part {i}", marks, "step of gradient descent", "‖Π r‖² / n")
        for i in range(count)
    ]
    chart = Chart(panels, " · ".join(f"setting {i} {i}" for i in range(24)), "One lesson in several pictures")
    figure = chart.render()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts if text.get_text()]
    for ax in figure.axes:
        for axis, places in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            drawn = [tick for tick in axis.get_major_ticks() if places[0] <= tick.get_loc() <= places[1]]
            boxes += [(tick.label1.get_text(), tick.label1.get_window_extent(renderer)) for tick in drawn]
    shown = [(a, b) for a, b in boxes if b.width > 0]
    for (name, box), (other, its) in itertools.combinations(shown, 2):
        wide = min(box.x1, its.x1) - max(box.x0, its.x0)
        high = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert wide <= 1 or high <= 2.5, f"{name!r} and {other!r} overlap by {wide:.1f} x {high:.1f} pixels"
    for name, box in shown:
        assert box.x0 >= -1 and box.x1 <= 901, f"{name!r} leaves the picture"


def test_named_places_keep_apart() -> None:
    """Catches: names under an axis that run together ("rescaledbalanced"); one with room is no smaller."""
    names = ["all", "top layer", "rescaled", "balanced", "random"]
    crowded = Panel("Radius", [Points(np.arange(5.0), CURVE[:5])], xticks=list(enumerate(names)))
    roomy = Panel("Loss", [Points(np.arange(3.0), CURVE[:3])], xticks=[(2, "late\nloss 0.01"), (0, "early")])
    figure = Chart([roomy, crowded, roomy], "").render(900)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    written = [[tick.label1 for tick in ax.xaxis.get_major_ticks()] for ax in figure.axes]
    boxes = [label.get_window_extent(renderer) for label in written[1]]
    assert all(b.x0 - a.x1 > 3 for a, b in itertools.pairwise(boxes))
    assert written[1][0].get_size() < written[0][0].get_size() == TICK


def test_the_colours_stay_apart_for_the_colour_blind() -> None:
    """Catches: two curves that one man in twelve sees in one colour. After Viénot, Brettel, Mollon (1999)."""
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    }
    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in COLORS[:5]])
    for name, matrix in blind.items():
        seen = (np.linalg.inv(to_lms) @ matrix @ to_lms @ (rgb**2.2).T).T.clip(0, 1) ** (1 / 2.2)
        for i, j in itertools.combinations(range(len(seen)), 2):
            assert np.linalg.norm(seen[i] - seen[j]) > 0.12, f"{COLORS[i]} and {COLORS[j]} ({name})"


def test_the_picture_tells_where_it_comes_from() -> None:
    """Catches: a figure in a talk that nobody can repeat."""
    chart = Chart([Panel("Residual", [MARKS["measured"]])], "width 64 · seeds 0–2")
    info = PIL.Image.open(io.BytesIO(chart.png(metadata={"Repeat": "run"}))).info
    assert info["Description"] == "width 64 · seeds 0–2" and info["Title"] == "Residual"
    assert "matplotlib" in info["Software"] and info["Repeat"] == "run"
    text = chart.svg(metadata={"Repeat": "run"}).decode()
    assert "width 64 · seeds 0–2" in text and "Repeat: run" in text


def test_the_same_chart_gives_the_same_bytes() -> None:
    """Catches: notebooks and vector files that change whenever they are executed."""
    chart = Chart([Panel("Residual", list(MARKS.values())[:7])])
    assert chart.png() == chart.png() and chart.svg() == chart.svg()


def test_saving_takes_png_and_svg_and_refuses_the_rest(tmp_path: Any) -> None:
    """Catches: a .pdf that is a PNG inside."""
    chart = Chart([Panel("Residual", [MARKS["measured"]])])
    with PIL.Image.open(chart.save(tmp_path / "a.png")) as image:
        assert image.size == (1800, 680)
    assert chart.save(tmp_path / "a.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match=r"path must end in \.png or \.svg; got .*a\.pdf"):
        chart.save(tmp_path / "a.pdf")


def test_nothing_global_changes_and_no_style_leaks_in() -> None:
    """Catches: a figure that depends on the style the person has set, or sets one."""
    before = dict(matplotlib.rcParams)
    chart = Chart([Panel("Residual", [MARKS["measured"], MARKS["points"]], "step", "loss", yscale="log")])
    plain, svg = pixels(chart), chart.svg()
    assert dict(matplotlib.rcParams) == before
    loud = {"axes.facecolor": "black", "axes.grid": True, "font.size": 30, "text.color": "red"}
    odd = {"text.usetex": True, "lines.scale_dashes": False, "lines.linestyle": ":", "lines.marker": "x"}
    with matplotlib.rc_context({**loud, **odd, "mathtext.fontset": "stix", "savefig.bbox": "tight"}):
        styled = dict(matplotlib.rcParams)
        assert np.array_equal(pixels(chart), plain) and chart.svg() == svg
        assert dict(matplotlib.rcParams) == styled


@pytest.mark.parametrize("angle", [0.0, 90.0, 30.0])
def test_kept_letters_are_those_that_matplotlib_draws(angle: float) -> None:
    """Catches: a text that is cut off or moved, and one kept for another size, weight, colour or angle."""
    for _ in range(2):  # made, and kept
        for size, weight, color in ((9, "normal", "black"), (12, "bold", "black"), (9, "bold", "red")):
            drawn = []
            for kind in (KeptLetters, RendererAgg):
                renderer = kind(300, 300, 100)
                gc = renderer.new_gc()
                gc.set_foreground(color)
                font = FontProperties(size=size, weight=weight)
                renderer.draw_text(gc, 100, 150, "jÅg_f", font, angle)
                drawn.append(np.asarray(renderer.buffer_rgba()).astype(int)[..., [0, 3]])
            # Where two letters meet, inks are rounded once more.
            assert drawn[1].any() and np.abs(drawn[0] - drawn[1])[..., 1].max() <= 2
            assert drawn[0][..., 0].max() == drawn[1][..., 0].max()


def test_two_threads_may_draw_at_once() -> None:
    """Catches: matplotlib's caches corrupted by the panel's thread and a cell's."""
    chart = Chart([Panel(r"$\sigma_1$ and friends", [MARKS["measured"]], yscale="log")])
    wanted, got = chart.png(), []
    threads = [threading.Thread(target=lambda: got.append(chart.png())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [wanted] * 4


def test_text_and_picture_in_a_notebook_are_constant_text() -> None:
    """Catches: a memory address in a cell that nbval compares."""
    bundle, about = Chart([Panel("Error")])._repr_mimebundle_()
    assert about == {"image/png": {"alt": "Figure. Error"}}
    assert bundle["text/plain"] == "<Chart>" and bundle["image/png"].startswith(b"\x89PNG")


def test_a_caption_names_settings_and_seeds() -> None:
    """Catches: a figure that does not say how many seeds it shows."""
    from dataclasses import dataclass

    from labkit.protocol.settings import Settings, knob

    @dataclass(frozen=True)
    class Own(Settings):
        label_noise: float = knob(0.25, "share")
        width: int = knob(64, "width")

    facts = "label noise 0.25 · width 64 · rank 5 · seeds 0–2"
    assert caption("Two losses.", Own(), rank=5) == f"Two losses.\n{facts}"
    assert caption("Two losses.", Own(seed=7, seeds=1)).endswith("seed 7")
    assert caption("Two losses.") == "Two losses."


def test_a_caption_says_first_what_is_shown() -> None:
    """Catches: settings without a word on what they were set for, seen or read out."""
    chart = Chart(Panel("Loss"), caption("Two losses of one network.", n=20))
    assert chart.words == "Figure. Two losses of one network. Loss"
    texts = {text.get_text(): text.get_position()[1] for text in chart.render().texts}
    assert texts["Two losses of one network."] > texts["n 20"]


def colours(chart: Chart) -> set[tuple[int, ...]]:
    """The colours in the picture of a chart without legend."""
    pixels = np.asarray(PIL.Image.open(io.BytesIO(chart.png())).convert("RGB"))
    return set(map(tuple, pixels.reshape(-1, 3).tolist()))


@pytest.mark.parametrize("kind", [Measured, Points])
def test_curves_that_lie_on_each_other_are_all_seen(kind: Any) -> None:
    """Catches: three invariants of which the picture shows one."""
    names = ["#FF0000", "#00AA00", "#0000FF"]
    found = colours(Chart(Panel("", [kind(T, CURVE, "", name) for name in names])))
    assert {(255, 0, 0), (0, 170, 0), (0, 0, 255)} <= found


def test_a_curve_alone_is_whole() -> None:
    """Catches: what is not hidden drawn twice, or in stretches."""
    low, high = Measured(T, CURVE, "low"), Measured(T, CURVE + 1, "high", 1)
    through = [
        line for line in Chart(Panel("", [low, high])).render().axes[0].lines if line.get_zorder() == 4.3
    ]
    assert len(through) == 2 and not any(np.isfinite(line.get_ydata()).any() for line in through)


def test_a_stored_figure_names_no_curve_that_is_not_there() -> None:
    """Catches: a prediction drawn alone, under a legend of what will be measured."""
    marks = [Predicted(T, CURVE, "theory"), Measured(T, SEEDS * np.nan, "training"), Measured([], [], "test")]
    chart = Chart(Panel("Loss", marks))
    about = chart._repr_mimebundle_()[1]
    assert about["image/png"]["alt"] == "Figure. Loss. predicted: theory"
    written = {text.get_text() for text in chart.there().render().texts}
    assert "theory" in written and not written & {"training", "test", "measured"}


def test_a_legend_names_every_curve() -> None:
    """Catches: a ninth curve without a name, because the names of the others took the room."""
    marks = [Measured(T, SEEDS, f"measure number {i}", i) for i in range(9)]
    written = {text.get_text() for text in Chart([Panel(f"{k}", marks) for k in range(3)]).render().texts}
    assert {mark.label for mark in marks} <= written


def test_a_long_caption_is_broken_between_settings() -> None:
    """Catches: provenance that runs out of the picture."""
    text = " · ".join(f"setting number {i}" for i in range(20))
    lines = wrap(text, 7.2, 400, 3)
    assert len(lines) == 3 and all(text_width(line, 7.2) <= 400 for line in lines)
    font = FontProperties(family=FONT, size=7.2)
    for dots in (1, 2):  # as matplotlib measures a whole line
        wide = [RendererAgg(1, 1, 100 * dots).get_text_width_height_descent(s, font, False)[0] for s in lines]
        assert all(300 < one / dots <= 401 for one in wide[:2]), wide


@pytest.mark.parametrize("dpi", [100, 200])
def test_a_line_of_known_words_looks_as_matplotlib_writes_it(dpi: int) -> None:
    """Catches: words that run into each other, or stand off their line."""
    text = "width 128 · learning rate 0.1 · ‖W‖ of (C1), percentile ε 0.0001 · AV To Wa y, j  g"
    pictures = []
    for kind in (RendererAgg, KeptLetters):
        sheet = kind(1200, 60, dpi)
        sheet.draw_text(sheet.new_gc(), 20, 40, text, FontProperties(family=FONT, size=7.2), 0.0)
        pictures.append(np.asarray(sheet.buffer_rgba())[..., 3] / 255)
    whole, words = pictures
    for axis in (0, 1):  # where the ink begins and ends, to a dot; and how much of it there is
        ends = [np.flatnonzero(picture.any(axis=axis))[[0, -1]] for picture in pictures]
        assert np.abs(ends[0] - ends[1]).max() <= 1
    assert abs(whole.sum() - words.sum()) < 0.03 * whole.sum()
    for one, other in ((whole, words), (words, whole)):
        near = np.max([np.roll(other, shift, axis=1) for shift in (-1, 0, 1)], axis=0)
        assert (one <= near + 0.3).mean() > 0.998


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Measured(T, SEEDS.T), "pass y.T"),
        (lambda: Measured(T, CURVE[:7]), r"with T = 50 as in x, got \(7,\)"),
        (lambda: Bound(T, CURVE, side="left"), "side must be 'above' or 'below', got 'left'"),
        (lambda: Level(1.0, axis="z"), "axis must be 'x' or 'y'"),
        (lambda: Histogram(T, CURVE), "one entry fewer than edges"),
        (lambda: Raster(CURVE), r"values must be \(rows, columns\)"),
        (lambda: Panel("", yscale="logg"), "yscale must be one of linear, log, log2, symlog; got 'logg'"),
        (lambda: Panel("", yscale="log", ylim=(0, 1)), "ylim must be positive on a log axis"),
    ],
)
def test_a_wrong_mark_is_refused_by_name(make: Any, says: str) -> None:
    """Catches: a shape error three calls deeper, in the worker."""
    with pytest.raises(ValueError, match=says):
        make()
