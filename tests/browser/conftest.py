"""A real JupyterLab and a headless Chromium, and a notebook in them as a person has it.

    def test_something(open_notebook):
        page = open_notebook(path)          # a copy of it is served
        page.run_all()
        page.button("Train").click()

Without Chromium these tests are skipped, with the reason; LABKIT_BROWSER=required makes that a failure.
Pictures go to LABKIT_ARTIFACTS, or build/screenshots.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "labkit-tests"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Cells outside the window would not exist in the page.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def missing(reason: str) -> None:
    """Skips, or fails where a browser is required."""
    if os.environ.get("LABKIT_BROWSER") == "required":
        pytest.fail(f"LABKIT_BROWSER=required, but {reason}")
    pytest.skip(f"{reason}; LABKIT_BROWSER=required would make this a failure")


def chromium() -> str | None:
    """A Chromium on this machine: LABKIT_CHROMIUM, or the first of the usual names."""
    names = (os.environ.get("LABKIT_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def artifacts() -> Path:
    folder = Path(os.environ.get("LABKIT_ARTIFACTS", ROOT / "build" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        missing("playwright is not installed")
    path = chromium()
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        except Error as problem:
            missing(f"no Chromium can be started ({str(problem).splitlines()[0]})")
        yield started
        started.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A JupyterLab of its own: own port, own settings, own folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "notebooks"
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, values in SETTINGS.items():
            file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = open(home / "jupyterlab.log", "wb")  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                f"--port={self.url.rsplit(':', 1)[1]}", f"--IdentityProvider.token={TOKEN}",
                f"--ServerApp.root_dir={self.folder}", "--LabApp.expose_app_in_browser=True",
                "--LabApp.extension_manager=readonly",
            ],
            cwd=self.folder, stdout=self._log, stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
                "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTER_CONFIG_DIR": str(home / "config"),
                "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
                "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_PLATFORM_DIRS": "1",
            },
        )  # fmt: skip
        for _ in range(240):
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/api?token={TOKEN}", timeout=1).close()
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.25)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start:\n{(home / 'jupyterlab.log').read_text()[-2000:]}")

    def end_kernels(self) -> None:
        """What still trains behind a closed page would take a core from the next test."""

        def ask(path: str, method: str) -> bytes:
            asked = urllib.request.Request(f"{self.url}/api/{path}?token={TOKEN}", method=method)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return bytes(answer.read())

        for kernel in json.loads(ask("kernels", "GET")):
            ask(f"kernels/{kernel['id']}", "DELETE")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@pytest.fixture(scope="session")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("jupyterlab"))
    yield running
    running.stop()


class Notebook:
    """A notebook in JupyterLab, with a panel in it."""

    def __init__(self, page: Any, server: Server, name: str, artifacts: Path) -> None:
        self.page, self.artifacts = page, artifacts
        self.panel = page.locator(".lm-Widget.widget-vbox").first
        self.stem = Path(name).stem
        page.goto(f"{server.url}/lab/tree/{name}?token={TOKEN}&reset", timeout=60_000)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        # A notebook that names no kernel is asked for one.
        page.wait_for_function(f"() => {IDLE} || document.querySelector('.jp-Dialog')", timeout=90_000)
        if page.locator(".jp-Dialog").count():
            page.locator(".jp-Dialog .jp-mod-accept").click()
        page.wait_for_function(f"() => {IDLE}", timeout=90_000)

    def command(self, name: str) -> None:
        self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def run_all(self, seconds: float = 120) -> None:
        """Runs all cells and waits for the last to end."""
        self.command("notebook:run-all-cells")
        self.page.wait_for_timeout(300)
        self.page.wait_for_function(
            f"() => {IDLE} && "
            "![...document.querySelectorAll('.jp-InputPrompt')].some(p => /[*]/.test(p.textContent))",
            timeout=1000 * seconds,
        )

    def restart(self) -> None:
        """Starts the kernel anew, and waits until it is there."""
        # Not waited for here: the command ends when the dialog is answered.
        self.page.evaluate("() => { window.jupyterapp.commands.execute('kernelmenu:restart') }")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.page.wait_for_timeout(500)
        self.page.wait_for_function(f"() => {IDLE}", timeout=90_000)

    def save(self) -> None:
        self.command("docmanager:save")
        self.page.wait_for_timeout(1500)

    def errors(self) -> list[str]:
        """What went to stderr or ended a cell."""
        stderr = "[data-mime-type='application/vnd.jupyter.stderr']"
        found = self.page.locator(f"{stderr}, .jp-OutputArea-output.jp-mod-error")
        return [text for text in found.all_inner_texts() if text.strip()]

    def shot(self, name: str, only_panel: bool = False) -> Path:
        path = self.artifacts / f"{self.stem}-{name}.png"
        if only_panel:
            self.panel.screenshot(path=path)
        else:
            self.page.screenshot(path=path)
        return path

    # ---- the panel

    def look_at(self, title: str) -> None:
        """Turns to the panel with this heading: from here on all is about it."""
        heading = self.page.locator(f".widget-html [role='heading']:text-is('{title}')")
        self.panel = self.page.locator(".lm-Widget.widget-vbox").filter(has=heading).first
        self.panel.locator("img.widget-image").scroll_into_view_if_needed()

    def button(self, name: str) -> Any:
        # By what is written on it: to the browser the icon in front is part of the name.
        return self.panel.locator(f"button.widget-button:text-is('{name}')").first

    def slider(self, label: str) -> Any:
        """The handle of the slider with this label."""
        row = self.panel.locator(
            ".widget-inline-hbox", has=self.page.locator(f".widget-label:text-is('{label}')")
        )
        return row.first.locator(".noUi-handle")

    def readout(self, label: str) -> str:
        row = self.panel.locator(
            ".widget-inline-hbox", has=self.page.locator(f".widget-label:text-is('{label}')")
        )
        return str(row.first.locator(".widget-readout").inner_text())

    def field(self, label: str) -> str:
        """What stands in the text field with this label."""
        row = self.panel.locator(".widget-text", has=self.page.locator(f".widget-label:text-is('{label}')"))
        return str(row.first.locator("input").input_value())

    def status(self) -> str:
        return str(self.panel.locator(".widget-html [role='status']").first.inner_text())

    def wait_status(self, text: str, seconds: float = 60) -> float:
        """Waits until the status line contains ``text``; returns the seconds it took."""
        begun = time.monotonic()
        try:
            told = self.panel.locator(".widget-html [role='status']").filter(has_text=text)
            told.first.wait_for(state="attached", timeout=1000 * seconds)
        except Exception as late:
            self.shot("waited-in-vain")
            seen = self.panel.locator(".widget-html").all_inner_texts()
            raise AssertionError(f"no {text!r} within {seconds:g} s; the panels say {seen}") from late
        return time.monotonic() - begun

    def picture(self) -> str:
        """A name for the picture shown; it changes with every frame."""
        return str(self.panel.locator("img.widget-image").first.get_attribute("src"))

    def wait_picture(self, old: str, seconds: float = 20) -> float:
        """Waits for another picture than ``old``, at every frame of the page; returns the seconds it took."""
        begun = time.monotonic()
        image = self.panel.locator("img.widget-image").first.element_handle()
        self.page.wait_for_function(
            "([image, old]) => image.getAttribute('src') !== old", arg=[image, old], polling="raf",
            timeout=1000 * seconds,
        )  # fmt: skip
        return time.monotonic() - begun

    def picture_size(self) -> tuple[int, int]:
        box = self.panel.locator("img.widget-image").first.evaluate("i => [i.naturalWidth, i.naturalHeight]")
        return int(box[0]), int(box[1])

    def wait_verdict(self, claim: str, seconds: float = 20, running: bool = False) -> str:
        """Waits until a claim is decided, for good or (``running``) so far; returns its word."""
        end = time.monotonic() + seconds
        word = "…"
        while time.monotonic() < end:
            word = self.verdicts().get(claim, "…")
            if word != "…" and (running or not word.endswith("so far")):
                break
            self.page.wait_for_timeout(50)
        return word

    def verdicts(self) -> dict[str, str]:
        """Claim -> word, as the first panel shows them; its kind and what the word needs stand below."""
        rows = self.panel.locator("table[aria-label='Verdicts']").first.locator("tr").all()
        cells = [row.locator("td").all_inner_texts() for row in rows]
        return {row[0].split()[0]: " ".join(row[1].splitlines()[0].split()) for row in cells}


@pytest.fixture
def open_notebook(browser: Any, server: Server, artifacts: Path) -> Iterator[Callable[..., Notebook]]:
    """Opens a copy of a notebook, in a ``folder`` of the server; ``beside`` are files it needs there."""
    pages: list[Any] = []

    def open_it(
        path: Path, *beside: Path, folder: str = "", width: int = 1300, height: int = 1000
    ) -> Notebook:
        (server.folder / folder).mkdir(exist_ok=True)
        for file in (path, *beside):
            shutil.copy(file, server.folder / folder / file.name)
        context = browser.new_context(viewport={"width": width, "height": height})
        pages.append(context)
        return Notebook(context.new_page(), server, f"{folder}/{path.name}".lstrip("/"), artifacts)

    yield open_it
    for context in pages:
        context.close()
    server.end_kernels()
