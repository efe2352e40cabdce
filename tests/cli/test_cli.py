"""The command line: exit codes, one clear line on bad input, files whole or absent."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time

import nbformat
import pytest

import labkit.labs
from labkit import cli, notebooks
from labkit.classroom import folder as place
from labkit.cli import doctor
from labkit.headless import output
from labkit.headless.audit import audit, plain
from tests.conftest import ROOT
from tests.tinylab import LAB

RUN_KEYS = {"lab", "paper", "settings", "seed", "device", "versions", "seconds", "claims"}
CLAIM_KEYS = {
    "id", "statement", "source", "rule", "verdict", "vacuous", "expected", "predicted", "measured", "spread",
    "note",
}  # fmt: skip


@pytest.fixture(autouse=True)
def only_the_tiny_lab(monkeypatch):
    monkeypatch.setattr(labkit.labs, "LABS", {7: ("tiny", "tests.tinylab")})


def fails_with(capsys, words, *, code=2):
    """Runs a command that must fail, and returns its one line."""
    assert cli.main(words) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "%" not in line]  # less the progress
    assert out == "" and len(lines) == 1, (out, err)
    assert "Traceback" not in err and "usage" not in err
    return lines[0]


def test_json_of_a_run_has_exactly_the_promised_keys(tmp_path, capsys):
    """A renamed or lost key breaks everybody who reads the file."""
    target = tmp_path / "run.json"
    assert cli.main(["run", "7", "--all-claims", "--json", str(target)]) == 0
    run = json.loads(target.read_text(), parse_constant=lambda word: pytest.fail(f"not JSON: {word}"))
    assert set(run) == RUN_KEYS
    assert all(set(claim) == CLAIM_KEYS for claim in run["claims"])
    assert run["settings"]["decay"]["width"] == 8 and run["settings"]["extra"]["rank"] == 2
    assert [claim["id"] for claim in run["claims"]] == ["T1", "T2", "T3"]
    assert list(tmp_path.iterdir()) == [target]


def test_numbers_that_json_cannot_hold_become_null_or_text():
    """NaN and Infinity are not JSON; a strict reader refuses the whole file."""
    inf = float("inf")
    assert plain({"a": float("nan"), "b": (inf, -inf, 1.5)}) == {"a": None, "b": ["inf", "-inf", 1.5]}


def test_core_claims_alone_run_only_the_experiments_they_need():
    """Running everything for the core claims would break the 90 s promise."""
    assert [run.experiment.name for run in audit(LAB).runs] == ["decay"]
    assert [run.experiment.name for run in audit(LAB, all_claims=True).runs] == ["decay", "extra"]


def test_exit_code_is_zero_whatever_the_verdicts(capsys):
    """A failing claim is a result, not a failure of the command."""
    assert cli.main(["run", "tiny", "--all-claims"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^T1 +holds", out, re.M) and re.search(r"^T3 +fails", out, re.M)
    assert "1 holds, 1 reported, 1 fails" in out
    assert "decay" in err and "decay" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "9"], "there is no lab '9'"),
        (["run", "7", "--set", "noise=1.5"], "noise must be between 0 and 1; got 1.5"),
        (["run", "7", "--set", "width=-3"], "width must be at least 1; got -3"),
        (["run", "7", "--set", "width=wide"], "width must be a number"),
        (["run", "7", "--set", "widht=3"], "did you mean width"),
        (["run", "7", "--set", "colour=3"], "settings: .*noise.*rank.*width"),
        (["run", "7", "--set", "width"], "--set takes name=value, got 'width'"),
        (["run", "7", "--set", "rank=3"], "rank is a setting of extra alone.*--all-claims"),
        (["run", "7", "--preset", "huge"], "--preset.*huge"),
        (["run", "7", "--all-claims", "--preset", "paper"], "'paper' is not one of quick"),
        (["run", "7", "--seed", "one"], "--seed.*one"),
        (["run", "7", "--seed", "-1"], "seed must be"),
        (["run", "7", "--device", "tpu"], "--device.*tpu"),
        (["run", "7", "--fast"], "--fast"),
        (["run", "7", "--json", "no/such/folder/run.json"], "there is no folder"),
        (["run", "7", "--html", "."], "is a folder"),
        (["run", "7", "--json", "x", "--html", "./x"], "name the same file"),
        (["run"], "LAB"),
        (["fly"], "fly"),
        (["claims", "--yaml"], "--yaml"),
        (["lab", "no-such-notebook"], "there is no"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(words, message, capsys, tmp_path, monkeypatch):
    """A traceback or a page of usage hides what was wrong."""
    monkeypatch.chdir(tmp_path)
    line = fails_with(capsys, words)
    assert line.startswith("labkit") and re.search(message, line), line
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_refused_before_the_run(capsys, monkeypatch):
    """Finding out after five minutes of training that the folder does not exist costs five minutes."""
    monkeypatch.setattr("labkit.headless.audit.drain", lambda *_, **__: pytest.fail("it ran"))
    fails_with(capsys, ["run", "7", "--json", "no/such/folder/run.json"])


def test_set_reaches_every_experiment_that_has_the_setting(capsys, tmp_path):
    """A change applied to the first experiment only would mix two settings in one table."""
    target = tmp_path / "run.json"
    words = ["run", "7", "--all-claims", "--set", "seeds=2", "width=16", "--seed", "5", "--json", str(target)]
    assert cli.main(words) == 0
    run = json.loads(target.read_text())
    assert {name: s["seeds"] for name, s in run["settings"].items()} == {"decay": 2, "extra": 2}
    assert {name: s["seed"] for name, s in run["settings"].items()} == {"decay": 5, "extra": 5}
    assert run["settings"]["decay"]["width"] == 16 and run["seed"] == 5


def test_ctrl_c_ends_with_130_and_leaves_no_file(capsys, tmp_path):
    """An interrupted run must not leave half a file, nor a whole one that looks like a result."""
    words = ["run", "7", "--all-claims", "--set", "fate=interrupted", "--json", str(tmp_path / "run.json")]
    assert cli.main(words) == 130
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


def test_a_diverged_run_leaves_its_claims_undecided_with_the_advice(capsys):
    """A claim that looks at values the run never reached would end the audit in a KeyError."""
    verdicts = audit(LAB, all_claims=True, changes={"fate": "diverged"}).verdicts
    assert [verdict.word for verdict in verdicts] == ["holds", "undecided", "fails"]
    assert "0.5 would be stable" in verdicts[1].note


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    """Truncating before writing would lose the previous result on a full disk."""
    target = tmp_path / "run.json"
    output.write_atomically(target, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        output.write_atomically(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_writing_through_a_link_keeps_the_link(tmp_path):
    """Replacing a link by a file would cut a person's results folder off."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    output.write_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"


def test_claims_as_json_are_the_static_fields(capsys):
    """A listing that ran anything, or lost the core flag, could not plan an audit."""
    assert cli.main(["claims", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows[0]) == {"id", "lab", "statement", "source", "rule", "expected", "core", "experiment"}
    assert [(row["id"], row["core"], row["experiment"]) for row in rows] == [
        ("T1", True, "decay"), ("T2", False, "extra"), ("T3", False, "decay"),
    ]  # fmt: skip


def test_claims_as_text_name_each_claim_and_its_source(capsys):
    """A claim missing from the list is a claim nobody audits."""
    assert cli.main(["claims"]) == 0
    out = capsys.readouterr().out
    assert all(f"T{n}" in out and f"a paper, ({n})" in out for n in (1, 2, 3))


def test_progress_redraws_on_a_terminal_and_prints_lines_elsewhere():
    """Carriage returns fill a log file; a line a frame floods it."""
    pipe = io.StringIO()
    with output.ProgressBar(pipe, clock=lambda: 0.0) as bar:
        for share in (0.0, 0.1, 0.2):
            bar(share, "decay")
    assert pipe.getvalue() == "  0% decay (0 s)\n"
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with output.ProgressBar(terminal, clock=lambda: 0.0) as bar:
        bar(0.5, "decay")
    assert "\r[###############...............]  50%" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A place outside any checkout, as for a package installed from a wheel that carries two notebooks."""
    carried, here = tmp_path / "carried", tmp_path / "here"
    carried.mkdir()
    here.mkdir()
    for name in ("00_start_here", "04_jacobian"):
        nbformat.write(nbformat.v4.new_notebook(), carried / f"{name}.ipynb")
    for module in (notebooks, place):
        monkeypatch.setattr(module, "find_folder", lambda: carried)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def folder(installed):
    """A folder that `labkit get` filled, and the current one."""
    return place.get(installed).folder


@pytest.fixture
def jupyter(monkeypatch):
    """Records how Jupyter would be started."""
    started = []

    class Process:
        def __init__(self, command, env):
            started.append(command)

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    return started


@pytest.mark.parametrize("wanted", ["4", "04", "jacobian", "04_jacobian", "04_jacobian.ipynb", "jac"])
def test_lab_opens_the_notebook_by_number_name_or_file(wanted, folder, jupyter):
    """`labkit lab 4` that opens the file browser leaves a student searching."""
    assert cli.main(["lab", wanted]) == 0
    assert jupyter[0][:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={folder}" in jupyter[0]
    assert "--LabApp.default_url=/lab/tree/04_jacobian.ipynb" in jupyter[0]


def test_lab_hands_other_arguments_to_jupyter_in_order(folder, jupyter):
    """`--port 8890` taken apart would open a notebook named 8890."""
    assert cli.main(["lab", "--no-browser", "--port", "8890"]) == 0
    assert jupyter[0][-2:] == ["--port", "8890"] and "--no-browser" in jupyter[0]
    assert cli.main(["lab", "--LabApp.default_url=/lab"]) == 0
    assert [word for word in jupyter[1] if "default_url" in word] == ["--LabApp.default_url=/lab"]


def opened(jupyter, wanted=None):
    """The folder and the notebook that `labkit lab` opens."""
    assert cli.main(["lab", *([wanted] if wanted is not None else [])]) == 0
    options = dict(word.split("=", 1) for word in jupyter[-1] if "=" in word)
    return options["--ServerApp.root_dir"], options.get("--LabApp.default_url", "").rpartition("/")[2]


def test_lab_finds_the_notebooks_from_inside_or_beside_their_folder(installed, jupyter, monkeypatch, capsys):
    """A second copy a level deeper: the answers seem gone."""
    place.get(installed / "week 1")
    (installed / "week 1" / "data").mkdir()
    for start in (installed, installed / "week 1", installed / "week 1" / "data"):
        monkeypatch.chdir(start)
        assert opened(jupyter) == (str(installed / "week 1"), "00_start_here.ipynb")
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in installed.rglob("*") if path.is_dir()) == ["data", "week 1"]


def test_lab_elsewhere_copies_the_notebooks_once_and_says_so(installed, jupyter, capsys):
    """Notebooks that appear unannounced, or an empty file browser."""
    made = installed / "labkit-notebooks"
    assert opened(jupyter, "4") == (str(made), "04_jacobian.ipynb")
    assert capsys.readouterr().out == f"labkit lab: copied 2 notebooks to {made}\n"
    assert opened(jupyter) == (str(made), "00_start_here.ipynb")
    assert capsys.readouterr().out == ""


def test_lab_copies_nothing_for_a_notebook_that_does_not_exist(installed, capsys):
    """A typing error must not leave a folder."""
    assert "00_start_here, 04_jacobian" in fails_with(capsys, ["lab", "9"])
    assert list(installed.iterdir()) == []


def test_lab_takes_no_course_of_assignments_for_the_notebooks(installed, jupyter):
    """A lecturer has `course/` beside it, with a record of its own."""
    (installed / "course").mkdir()
    (installed / "course" / ".labkit.json").write_text("{}")
    assert opened(jupyter)[0] == str(installed / "labkit-notebooks")


def test_lab_takes_a_folder_and_asks_which_where_there_are_several(installed, jupyter, capsys):
    """Guessing opens last week's answers."""
    for name in ("week1", "week2"):
        place.get(installed / name)
    assert "week1, week2" in fails_with(capsys, ["lab"])
    assert opened(jupyter, "week2") == (str(installed / "week2"), "00_start_here.ipynb")
    assert opened(jupyter, "week2/04_jacobian.ipynb") == (str(installed / "week2"), "04_jacobian.ipynb")


def test_lab_opens_the_notebooks_of_a_checkout_anywhere_in_it(jupyter, monkeypatch):
    """There the pairs are what one wants to edit, not copies."""
    monkeypatch.chdir(ROOT / "labkit" / "labs")
    assert opened(jupyter, "4")[0] == str(ROOT / "notebooks")


def test_lab_never_opens_the_copy_inside_the_installation(installed, jupyter, monkeypatch):
    """In a .venv of a checkout the package lies below the checkout too; an edit there is for all users."""
    carried = ROOT / ".venv" / "lib" / "labkit" / "_notebooks"
    monkeypatch.setattr(place, "find_folder", lambda: carried)
    assert opened(jupyter)[0] == str(installed / "labkit-notebooks")


def test_lab_without_jupyterlab_says_how_to_install_it(installed, monkeypatch, capsys):
    """Python's "No module named jupyterlab" comes too late, and names no environment."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"{sys.executable} -m pip install jupyterlab" in fails_with(capsys, ["lab"])
    assert list(installed.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ending_lab_ends_the_server(tmp_path):
    """A server that lives on keeps its port and its kernels."""
    server = tmp_path / "jupyterlab"  # In the place of the real one.
    server.mkdir()
    (server / "__init__.py").write_text("")
    waits = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('ended'))\n"
    (server / "__main__.py").write_text(f"{waits}open('up', 'w').close()\ntime.sleep(20)\nsys.exit('left')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit", "lab", str(tmp_path)], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 20
    while not (tmp_path / "up").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=30)[1] == "ended\n" and process.returncode == 1


def test_doctor_finds_a_torchvision_that_breaks_on_import_and_says_what_still_works(monkeypatch, capsys):
    """Beside another build of torch, importing torchvision raises RuntimeError, not ImportError."""
    real = doctor.importlib.import_module

    def broken(name, package=None):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^absent +torchvision +operator", out, re.M) and "mnist-5k" in out
    for name in ("python", "torch", "device", "memory", "nbgrader", "browser", "notebooks"):
        assert re.search(rf"^\w+ +{name} ", out, re.M), name


def test_doctor_exits_1_when_a_needed_package_is_broken(monkeypatch, capsys):
    """A green doctor beside a broken NumPy sends people looking elsewhere."""
    broken = doctor.Finding("numpy", "missing", "no", "pip install numpy")
    monkeypatch.setattr(doctor, "examine", lambda: [broken])
    assert cli.main(["doctor"]) == 1


def test_a_closed_pipe_ends_the_command_quietly():
    """`labkit claims | head -1` must not end in a BrokenPipeError."""
    code = "import labkit.labs as labs, labkit.cli as cli; labs.LABS = {7: ('tiny', 'tests.tinylab')}; "
    command = [sys.executable, "-c", code + "raise SystemExit(cli.main(['claims']))"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0


def test_package_runs_as_a_module():
    """`python -m labkit` is what works where the scripts folder is not on the PATH."""
    command = [sys.executable, "-m", "labkit", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("labkit ")
