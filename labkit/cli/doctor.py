"""What this machine has and lacks for labkit, and what to do about it."""

from __future__ import annotations

import importlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from labkit.headless.versions import versions
from labkit.protocol.machine import machine_bytes

WIDTH = 16  # of the names
PIP = f"{shlex.quote(sys.executable)} -m pip install"  # into this environment
# The extras that a person may want -> a package that each brings, and what it is for.
_EXTRAS = {
    "course": ("nbgrader", "to release and grade assignments"),
    "cluster": ("distributed", "to sweep and replicate on a cluster"),
    "docs": ("sphinx", "to build the site"),
    "bench": ("nngeometry", "to compare speeds with other libraries"),
    "test": ("nbval", "to run the tests"),
}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: "ok"; "absent", which labkit can do without; or "missing", which it cannot.
        advice: what to do, or what works all the same.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Looks at versions, device, memory, torchvision, extras, browser and notebooks, one after the other."""
    yield _python()
    yield from _packages()
    for look in (_device, _memory, _torchvision):
        yield look()
    yield from _extras()
    yield _browser()
    yield _notebooks()


def to_text(finding: Finding) -> str:
    """One line, with the advice below."""
    line = f"{finding.state:<8}{finding.name:<{WIDTH}}  {finding.found}"
    return f"{line}\n{' ' * (10 + WIDTH)}{finding.advice}" if finding.advice else line


def find_browser() -> str | None:
    """The path of a Chromium-like browser for the browser tests, or None."""
    named = os.environ.get("LABKIT_BROWSER_PATH")
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    known = versions()
    yield Finding("labkit", "ok", f"{known.get('labkit', '(source tree)')} in {Path(__file__).parent}")
    for name in (
        "torch",
        "numpy",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "ipywidgets",
        "jupyterlab",
        "jupytext",
    ):
        try:
            loaded = importlib.import_module("sklearn" if name == "scikit-learn" else name)
        except Exception as error:  # Whatever goes wrong inside a broken package is a finding, not a crash.
            yield Finding(name, "missing", _one_line(error), f"{PIP} --force-reinstall {name}")
        else:
            yield Finding(name, "ok", known.get(name) or str(getattr(loaded, "__version__", "?")))


def _device() -> Finding:
    try:
        from labkit.protocol.experiment import resolve_device

        device = resolve_device("auto")
        import torch
    except Exception as error:
        return Finding("device", "missing", _one_line(error), "torch must be importable first")
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        found = f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        return Finding("device", "ok", found, "use it with --device auto; the CPU gives the same verdicts")
    found = f"{device}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return Finding("device", "ok", found, "all quick presets are made for a CPU" if device == "cpu" else "")


def _memory() -> Finding:
    total, free = machine_bytes()
    if total is None:
        return Finding("memory", "ok", "unknown on this system")
    found = f"{total / 2**30:.1f} GiB" + (f", {free / 2**30:.1f} GiB free" if free is not None else "")
    if (free if free is not None else total) < 1.3 * 2**30:
        return Finding("memory", "absent", found, "a notebook needs up to 1.3 GiB: close other programs")
    return Finding("memory", "ok", found)


def _torchvision() -> Finding:
    try:
        module = importlib.import_module("torchvision")
    except Exception as error:  # Beside a torch of another build this is a RuntimeError, not an ImportError.
        advice = "digits, mnist-5k, synthetic data and .npz files work without; "
        advice += "for mnist, fashion-mnist and cifar install a torchvision of the same build as torch"
        return Finding("torchvision", "absent", _one_line(error), advice)
    return Finding("torchvision", "ok", str(module.__version__))


def _extras() -> Iterator[Finding]:
    """What `pip install labkit[...]` adds, and the command that adds it here."""
    from labkit.notebooks import find_checkout

    checkout = find_checkout(Path(__file__).resolve().parent)
    source = "labkit" if checkout is None else f"-e {shlex.quote(str(checkout))}"
    for extra, (package, purpose) in _EXTRAS.items():
        try:
            yield Finding(f"extra {extra}", "ok", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            advice = f"only needed {purpose}: {PIP} {source}'[{extra}]'"
            yield Finding(f"extra {extra}", "absent", f"no {package}", advice)


def _browser() -> Finding:
    path = find_browser()
    if path is not None:
        return Finding("browser", "ok", path)
    advice = "only the browser tests need one: install Chromium, or set LABKIT_BROWSER_PATH to its program"
    return Finding("browser", "absent", f"none of {', '.join(_BROWSERS)} is on the PATH", advice)


def _notebooks() -> Finding:
    from labkit.classroom.folder import find_copies
    from labkit.notebooks import CARRIED, find_folder, notebook_paths

    try:
        copies, full = find_copies(Path.cwd()), find_folder()
    except ValueError as error:
        return Finding("notebooks", "absent", _one_line(error))
    if copies is not None:
        return Finding("notebooks", "ok", f"{len(notebook_paths(copies))} to work in, in {copies}")
    found = f"{len(notebook_paths(full))} in {full}"
    advice = "`labkit get` copies them here to work in" if full == CARRIED else ""
    return Finding("notebooks", "ok", found, advice)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
