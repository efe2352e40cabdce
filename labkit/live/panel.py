"""The panel: sliders, the prediction that follows them, the training that catches up, and what it says.

    Panel(EXPERIMENT, settings)
    Panel(run)      # begins with a run that is made: its figure, with sliders above it

All updates come from the worker's thread through widget traits; callbacks only say what is wanted. Widgets
call back through weak references until the panel is shown, so that one that nobody holds and nobody sees goes
away.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import DisplayHandle, display

from labkit.figures import Chart
from labkit.protocol.experiment import Experiment, Lab, Run

from . import export, words
from .canvas import Canvas
from .controls import Controls
from .session import DEBOUNCE, Session

__all__ = ["Panel"]

VIEW = "application/vnd.jupyter.widget-view+json"


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    held = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        found = held()
        if found is not None:
            found(*args)

    return call


def _button(text: str, icon: str, help: str, style: str = "") -> widgets.Button:
    layout = widgets.Layout(width="auto", min_width="84px", margin="2px 6px 2px 0")
    return widgets.Button(description=text, icon=icon, tooltip=help, button_style=style, layout=layout)


def _row(*children: Any) -> widgets.Box:
    layout = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center", width="100%")
    return widgets.Box(children, layout=layout)


class Panel:
    """One experiment under the hand.

    Args:
        experiment: what to run, or a run to begin with: then its figure is shown, and nothing is computed
            until a slider moves. The verdicts are those of the runs made here.
        settings: where to begin; the quick preset when left out, those of the run where one is given.
        controls: the settings offered in front; the experiment's own choice when left out.
        title: a heading; the experiment's title when left out.
        lab: the lab of the experiment (or its number or name), for the command that repeats a run. Found by
            itself for labkit's own experiments.
        train: whether letting a slider go starts training.
        width, height: size of the figure in pixels.
        **steps: functions passed on to the experiment's ``run``.

    Raises:
        ValueError: ``controls`` names something that is not a setting; or there are a run and settings.
    """

    def __init__(
        self,
        experiment: Experiment | Run,
        settings: Any = None,
        *,
        controls: Sequence[str] | None = None,
        title: str | None = None,
        lab: Lab | str | int | None = None,
        train: bool = True,
        width: int = 900,
        height: int | None = None,
        **steps: Any,
    ) -> None:
        made: Run | None = None
        if isinstance(experiment, Run):
            if settings is not None:
                raise ValueError("settings: a run has its own; give its experiment to begin elsewhere")
            made, experiment, settings = experiment, experiment.experiment, experiment.settings
        settings = experiment.presets["quick"] if settings is None else settings
        self.experiment, self._lab, self._width = experiment, lab, width
        self._canvas = Canvas(width, height)
        self._shown: Chart | None = None
        self._stored = b""  # the picture of the run to begin with, until another is drawn
        self._place, self._displayed = DisplayHandle(), False  # of the picture that the notebook stores
        self._lock = threading.RLock()
        self._closed = False
        front = experiment.controls if controls is None else controls
        self.controls = Controls(settings, front, _weakly(self._moved))
        self._build(experiment.title if title is None else title, train)
        self._session = Session(experiment, settings, steps, self)
        self._finalizer = weakref.finalize(self, Session.close, self._session)
        self._repeat(settings)
        if made is None:
            self._session.want(settings, train=False)
        else:
            self._begin(made)

    def _begin(self, run: Run) -> None:
        """Shows a run that is made; drawn once, for the page and for the stored notebook alike."""
        self._session.begin(run)
        chart = self._shown = self.chart().there()
        self._stored = self.image.value = chart.png(self._canvas.width, self._canvas.height)
        self.image_words.value = words.alternative(chart)

    # ---- what it looks like

    def _build(self, title: str, train: bool) -> None:
        self._make_controls(train)
        self._make_outputs()
        self._box = widgets.VBox(
            [
                widgets.HTML(words.title(title) + words.ALIVE),
                self.controls.front,
                _row(self.train_button, self.stop_button, self.keep_button, self.clear_button, self.auto),
                _row(self.bar, self.status_line),
                self.error_box, self.image, self.image_words, self.grey_line, self.verdict_table,
                _row(self.png_button, self.svg_button, self.csv_button, self.saved_line),
                self.more,
            ],
            layout=widgets.Layout(width="100%", overflow="hidden"),
        )  # fmt: skip

    def _make_controls(self, train: bool) -> None:
        """What a person presses."""
        self.train_button = _button("Train", "play", "Train with these settings (again)", "primary")
        self.stop_button = _button("Stop", "stop", "Stop; what was measured stays", "warning")
        self.keep_button = _button("Keep run", "thumb-tack", "Keep this run in grey behind the next ones")
        self.clear_button = _button("Clear kept", "eraser", "Remove the runs in grey")
        self.auto = widgets.Checkbox(
            value=train, description="train when a slider is let go", indent=False,
            tooltip="Otherwise press Train",
            layout=widgets.Layout(width="auto", min_width="200px", margin="2px 6px"),
        )  # fmt: skip
        self.png_button = _button("Save PNG", "image", "Save the figure beside the notebook")
        self.svg_button = _button("Save SVG", "file-image-o", "Save the figure as vector graphics")
        self.csv_button = _button("Save CSV", "table", "Save every measured value beside the notebook")
        for button, act in (
            (self.train_button, self._train), (self.stop_button, self._stop), (self.keep_button, self._keep),
            (self.clear_button, self._clear), (self.png_button, self._save_png),
            (self.svg_button, self._save_svg), (self.csv_button, self._save_csv),
        ):  # fmt: skip
            button.on_click(_weakly(act))

    def _make_outputs(self) -> None:
        """What tells the person something."""
        self.bar = widgets.FloatProgress(
            value=0.0, min=0.0, max=1.0, tooltip="Progress of the run",
            layout=widgets.Layout(flex="1 1 140px", min_width="100px", max_width="260px", height="16px"),
        )  # fmt: skip
        self.status_line = widgets.HTML(
            words.status("Preparing …"), layout=widgets.Layout(margin="0 0 0 4px")
        )
        wide = widgets.Layout(width="100%", max_width=f"{self._width}px", height="auto", margin="4px 0")
        self.image = widgets.Image(format="png", layout=wide)
        self.image_words = widgets.HTML("")  # ipywidgets' Image has no text alternative of its own
        self.grey_line = widgets.HTML("")
        self.verdict_table = widgets.HTML("")
        self.error_box = widgets.HTML("")
        self.saved_line = widgets.HTML("")
        self.code_text = self._line("Python", "Repeats this run")
        self.command_text = self._line("Terminal", "Repeats this run with its claims")
        self.more = widgets.Accordion(
            [self.controls.rest, widgets.VBox([self.code_text, self.command_text])],
            titles=("More settings", "Repeat this run"), selected_index=None,
            layout=widgets.Layout(width="100%", max_width=f"{self._width}px", margin="4px 0"),
        )  # fmt: skip

    def _line(self, label: str, help: str) -> widgets.Text:
        # A layout of its own: hiding one line must not hide the other.
        layout = widgets.Layout(width="98%", max_width=f"{self._width}px")
        style = {"description_width": "70px"}
        return widgets.Text(description=label, layout=layout, style=style, tooltip=help)

    @property
    def widget(self) -> widgets.VBox:
        """The panel as an ipywidget, for laying it out among others; it stays alive from here on."""
        self._box.labkit_panel = self
        return self._box

    @property
    def run(self) -> Run:
        """The present run as it stands: settings, prediction and the frames so far."""
        return self._session.run

    @property
    def busy(self) -> bool:
        """Whether it predicts or trains."""
        return self._session.busy

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is going on; says whether that came about in time."""
        return self._session.join(timeout)

    def chart(self) -> Chart:
        """The figure as it stands."""
        return self._session.chart()

    def __repr__(self) -> str:
        return "<Panel>"

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, **more: Any
    ) -> tuple[dict[str, Any], ...]:
        """The picture as it stands: what a notebook that is opened without a kernel has to show."""
        self._session.ready.wait(60.0)  # the stored notebook shows the prediction at least
        if self._shown is None:  # The first settings failed, and the panel says why.
            return {"text/plain": repr(self)}, {}
        chart = self.chart().there()
        picture = self._stored or chart.png(self._canvas.width, self._canvas.height)
        return {"text/plain": repr(self), "image/png": picture}, {"image/png": {"alt": chart.words}}

    def _ipython_display_(self) -> None:
        """Two outputs, the stored picture and the view: one that had both would show neither later."""
        picture, about = self._repr_mimebundle_()
        self._place.display(picture, metadata=about, raw=True)
        self._displayed = True
        if not self._closed:
            view = dict(self.widget._repr_mimebundle_() or {})
            display({VIEW: view[VIEW]}, raw=True)

    def close(self) -> None:
        """Stops what is running and removes the panel from the page."""
        self._closed = True
        self._finalizer()
        for widget in self._every(self._box):
            widget.close()
        self._box.labkit_panel = None

    def _every(self, widget: Any) -> list[Any]:
        inside = [found for child in getattr(widget, "children", ()) for found in self._every(child)]
        return [*inside, widget]

    # ---- what the person does (the kernel's thread)

    def _wanted(self) -> Any | None:
        """The settings as the widgets stand, or None where they are none, and the panel will say why."""
        try:
            settings = self.controls.settings()
        except ValueError as problem:
            self._session.refuse(problem)
            return None
        self._repeat(settings)
        return settings

    def _moved(self) -> None:
        settings = self._wanted()
        if settings is not None:
            self._session.want(settings, train=self.auto.value, quiet=DEBOUNCE)

    def _train(self, button: Any = None) -> None:
        settings = self._wanted()
        if settings is not None:
            self._session.want(settings, train=True)

    def _stop(self, button: Any = None) -> None:
        # Before it is asked to: the run may end, and say so, before this thread speaks again.
        self.status("Stopping …", False)
        if not self._session.stop():
            self.status("Stopped.", False)

    def _keep(self, button: Any = None) -> None:
        if problem := self._session.keep():
            self.status(problem, False)

    def _clear(self, button: Any = None) -> None:
        self._session.forget()
        self.grey("")

    def _save(self, ending: str) -> None:
        try:
            run = self.run
            facts = {"Settings": run.settings.to_dict(), "Repeat": self.code_text.value}
            if ending == "csv":
                data = export.runs_csv(run, self._session.previous)
            else:
                chart = self.chart()
                size = (self._canvas.width, self._canvas.height)
                data = chart.svg(*size, facts) if ending == "svg" else chart.png(*size, 200, facts)
            path = export.write_new(data, f"labkit-{self.experiment.name}", ending)
        except Exception as problem:
            self.failed(problem, "Saving failed")
        else:
            self.saved_line.value = words.status(f"Saved {path.name}")

    def _save_png(self, button: Any = None) -> None:
        self._save("png")

    def _save_svg(self, button: Any = None) -> None:
        self._save("svg")

    def _save_csv(self, button: Any = None) -> None:
        self._save("csv")

    def _repeat(self, settings: Any) -> None:
        self.code_text.value = export.code_line(self.experiment, settings, self._lab)
        self.command_text.value = export.command_line(self.experiment, settings, self._lab)
        self.command_text.layout.display = None if self.command_text.value else "none"

    # ---- what the session tells (the worker's thread)

    def picture(self, chart: Chart, *, rest: bool = False, refit: bool = False) -> None:
        with self._lock:
            self._shown = chart
            data = self._canvas.sharp(chart, refit=refit) if rest else self._canvas.frame(chart)
            if not self._closed:
                self._stored = b""
                self.image.value = data
                self.image_words.value = words.alternative(chart)
                if rest and self._displayed and self._session.ended:  # what the notebook stores
                    shown = {"text/plain": repr(self), "image/png": data}
                    about = {"alt": chart.words, "width": self._canvas.width}
                    self._place.update(shown, metadata={"image/png": about}, raw=True)

    def expect(self, chart: Chart) -> None:
        """Makes ready to draw a chart like this one."""
        with self._lock:
            self._canvas.frame(chart)

    def outdated(self) -> None:
        """Takes the curves out of the picture; its axes stay, so that nothing jumps."""
        if self._shown is not None:
            self.picture(self._shown.emptied("no figure for these settings"), rest=True)

    def status(self, text: str, busy: bool) -> None:
        if not self._closed:
            self.status_line.value = words.status(text, busy)

    def progress(self, share: float | None, state: str) -> None:
        if not self._closed:
            self.bar.bar_style = state
            self.bar.value = 0.0 if share is None else min(max(share, 0.0), 1.0)

    def verdicts(self, html: str) -> None:
        if not self._closed:
            self.verdict_table.value = html

    def grey(self, text: str) -> None:
        if not self._closed:
            self.grey_line.value = words.quiet(text)

    def follow(self, wanted: bool, trained: bool) -> None:
        if not self._closed:
            self.controls.follow(wanted, trained)

    def failed(self, problem: BaseException, doing: str) -> None:
        """Says what went wrong, beside the control that the message names first, if it names one."""
        if self._closed:
            return
        told, named = words.error(problem, doing), re.match(r"\w+(?=:|=| must)", str(problem))
        name = named[0] if named and isinstance(problem, ValueError) else ""
        if name in self.controls.widgets:
            self.controls.note(name, told)
            if self.controls.folded(name):
                self.more.selected_index = 0
        else:
            self.error_box.value = told

    def clear_error(self) -> None:
        if not self._closed:
            self.error_box.value = ""
            self.controls.clear_note()
