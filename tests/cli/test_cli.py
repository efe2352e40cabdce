"""The command line: exit codes, one clear line on bad input, files whole or absent."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

import labkit.labs
from labkit import cli, notebooks
from labkit.cli import doctor, running
from labkit.headless.audit import audit, plain
from labkit.headless.files import write_atomically
from labkit.headless.price import Price
from labkit.headless.terminal import ProgressBar
from labkit.protocol.replication import Replication
from tests.conftest import ROOT
from tests.tinylab import DECAY, EXTRA, LAB

RUN_KEYS = {
    "lab", "paper", "settings", "seed", "device", "versions", "seconds", "interrupted", "claims", "failures",
    "notes",
}  # fmt: skip
STATIC_KEYS = {
    "id", "kind", "statement", "source", "rule", "expected", "because", "quantities", "fails_in",
    "experiment", "replication",
}  # fmt: skip
CLAIM_KEYS = STATIC_KEYS | {"verdict", "vacuous", "as_expected", "distance", "reason", "settings"}
LISTED_KEYS = STATIC_KEYS | {"lab", "core"}


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
    assert [claim["experiment"] for claim in run["claims"]] == ["decay", "extra", "decay"]
    assert all(claim["settings"] == run["settings"][claim["experiment"]] for claim in run["claims"])
    (number,) = run["claims"][0]["quantities"]
    assert number["name"] == "last loss" and number["edge"] == "at most its bound"
    assert (number["predicted"], number["measured"], number["spread"]) == ([0.5], [0.125], [0])
    assert (number["seeds"], number["tightness"], number["verdict"]) == (3, 4, "holds")
    assert list(tmp_path.iterdir()) == [target]


def test_numbers_that_json_cannot_hold_become_null_or_text():
    """NaN and Infinity are not JSON; a strict reader refuses the whole file."""
    inf = float("inf")
    assert plain({"a": float("nan"), "b": (inf, -inf, 1.5)}) == {"a": None, "b": ["inf", "-inf", 1.5]}


def test_core_claims_alone_run_only_the_experiments_they_need():
    """Running everything for the core claims would break the 90 s promise."""
    assert [run.experiment.name for run in audit(LAB).runs] == ["decay"]
    assert [run.experiment.name for run in audit(LAB, all_claims=True).runs] == ["decay", "extra"]


def test_a_run_shows_each_number_by_name_with_its_rule(capsys):
    """A word alone has to be believed."""
    assert cli.main(["run", "7"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "last loss: bound 0.5, measured 0.125, bound/measured ≥ 4 (3 seeds); holds if at most its bound"
        in told
    )


def test_a_run_says_how_often_the_expected_word_came_out(capsys, monkeypatch):
    """One run is no evidence for what other seeds do."""
    found = Replication("holds", {"holds": 19, "fails": 1}, seeds=3)
    monkeypatch.setattr("labkit.protocol.judging.replication_of", lambda *_: found)
    assert cli.main(["run", "7"]) == 0
    assert "T1   holds · theorem · holds in 19 of 20 blocks of 3 seeds\n" in capsys.readouterr().out


def test_exit_code_is_zero_whatever_the_verdicts(capsys):
    """A failing claim is a result, not a failure of the command."""
    assert cli.main(["run", "tiny", "--all-claims"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^T1 +holds · theorem$", out, re.M) and re.search(
        r"^T3 +fails · prediction$", out, re.M
    )
    assert "A tiny lab: 1 theorem checked; 1 prediction: 1 fails; 1 finding: 1 reported\n" in out
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
        (["run", "7", "--preset", "huge"], "preset: 'huge' is not one of quick, paper"),
        (["run", "7", "--experiment", "dekay"], "no 'dekay'; it has decay, extra"),
        (["run", "7", "--jobs", "0"], "--jobs must be at least 1"),
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
        (["claims", "7", "9"], "there is no lab '9'"),
        (["lab", "no-such-notebook"], "there is no"),
        (["replicate", "9"], "there is no lab '9'"),
        (["replicate", "7", "--blocks", "0", "--out", "x"], "blocks must be at least 1"),
        (["replicate", "7", "--jobs", "0"], "--jobs must be at least 1"),
        (["replicate", "7", "--experiment", "dekay", "--out", "x"], "no lab here has dekay"),
        (["replicate", "7", "--out", "no/such/folder"], "there is no folder"),
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
    monkeypatch.setattr("labkit.headless.carry.drain", lambda *_, **__: pytest.fail("it ran"))
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


def test_ctrl_c_in_the_first_experiment_leaves_no_file(capsys, tmp_path):
    """A file without any result."""
    words = [
        "run",
        "7",
        "--experiment",
        "extra",
        "--set",
        "fate=interrupted",
        "--json",
        str(tmp_path / "run"),
    ]
    assert cli.main(words) == 130
    assert list(tmp_path.iterdir()) == []
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_what_is_done_and_says_that_it_is_a_part(capsys, tmp_path, monkeypatch, jobs):
    """Minutes of runs lost to the wish to see them; or a part that looks like the whole."""
    if jobs == "2":  # A worker process cannot be interrupted by itself.
        monkeypatch.setattr(running, "processes", lambda *_: ThreadPoolExecutor(1))
    paths = [tmp_path / "run.json", tmp_path / "run.html"]
    words = ["run", "7", "--all-claims", "--set", "fate=interrupted", "--jobs", jobs]
    assert cli.main([*words, "--json", str(paths[0]), "--html", str(paths[1])]) == 130
    out, err = capsys.readouterr()
    assert "Partial: interrupted before the end of extra" in out and "T1" in out and "T2" not in out
    assert "Traceback" not in err
    run = json.loads(paths[0].read_text())
    assert run["interrupted"] and [claim["id"] for claim in run["claims"]] == ["T1", "T3"]
    page = paths[1].read_text()
    assert "Not decided, as the run was interrupted" in page and "labkit run 7 --experiment extra" in page


def test_a_setting_above_its_slider_runs_after_its_price(capsys):
    """Hours of silence, where a word would have been enough."""
    assert cli.main(["run", "7", "--set", "width=1000"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^decay at width=1000 \(slider 1 to 64\): about 1 s and \d+ MiB$", err, re.M), err
    assert "T1   holds" in out and "Not decided" not in out


def test_a_run_too_costly_is_refused_before_it_begins_unless_one_insists(capsys, monkeypatch):
    """A machine that stands still for a typing error."""
    monkeypatch.setattr("labkit.headless.price.price", lambda *_: Price(7200.0, 2.0**50))
    words = ["run", "7", "--all-claims", "--set", "width=1000"]
    with monkeypatch.context() as before:
        before.setattr("labkit.headless.carry.drain", lambda *_, **__: pytest.fail("it ran"))
        line = fails_with(capsys, words)
    assert re.search(r"decay at width=1000 .*about 2 h and 1024 TiB, more than the .*--insist", line), line
    assert cli.main([*words, "--insist"]) == 0
    assert "decay at width=1000" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("where", ["prepare", "run"])
def test_too_little_memory_is_told_in_one_line_and_loses_no_other_experiment(
    where, jobs, capsys, tmp_path, monkeypatch
):
    """A traceback that ends in an allocator, and no verdict of what had run."""

    def greedy(*_):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 42949672960 bytes."
        )

    if jobs == "2":
        monkeypatch.setattr(running, "processes", lambda *_: ThreadPoolExecutor(1))
    lab = replace(LAB, experiments=(DECAY, replace(EXTRA, **{where: greedy})))
    monkeypatch.setattr("tests.tinylab.LAB", lab)
    words = ["run", "7", "--all-claims", "--set", "rank=8", "--jobs", jobs, "--json", str(tmp_path / "run")]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "Not decided: T2, as extra ended: out of memory, for an array of 40 GiB, at rank=8\n" in out
    assert "T1   holds" in out and "T3   fails" in out and "Traceback" not in err
    run = json.loads((tmp_path / "run").read_text())
    assert run["failures"][0]["claims"] == ["T2"] and [claim["id"] for claim in run["claims"]] == ["T1", "T3"]


def test_an_error_of_the_numbers_is_one_line_and_its_traceback_is_to_be_had(capsys, monkeypatch):
    """Forty lines of torch, where a learning rate was too large."""

    def singular(*_):
        raise RuntimeError("linalg.eigh: failed\nto converge")

    monkeypatch.setattr("tests.tinylab.LAB", replace(LAB, experiments=(replace(DECAY, run=singular), EXTRA)))
    line = fails_with(capsys, ["run", "7"])
    assert line.startswith("labkit run: RuntimeError: linalg.eigh: failed to converge (--traceback shows")
    with pytest.raises(RuntimeError, match="failed"):
        cli.main(["run", "7", "--traceback"])


def test_an_experiment_can_be_run_by_itself_with_all_its_claims(capsys, tmp_path):
    """Minutes of other experiments, to see one again; or its claims off the core path left out."""
    target = tmp_path / "run.json"
    words = ["run", "7", "--experiment", "decay", "--preset", "paper", "--json", str(target)]
    assert cli.main(words) == 0
    run = json.loads(target.read_text())
    assert [claim["id"] for claim in run["claims"]] == ["T1", "T3"] and set(run["settings"]) == {"decay"}
    assert run["settings"]["decay"]["width"] == 64


@pytest.mark.parametrize("words", [["run", "7", "--all-claims"], ["report"]], ids=lambda words: words[0])
def test_two_jobs_give_what_one_gives(capsys, tmp_path, words):
    """Results that depend on how many processes share the work."""
    found = []
    for jobs in ("1", "2"):
        files = ["--json", str(tmp_path / jobs), "--html", str(tmp_path / f"{jobs}.html")]
        assert cli.main([*words, "--jobs", jobs, *files]) == 0
        found.append(re.sub(r'"seconds": [\d.]+', "", (tmp_path / jobs).read_text()))
    assert found[0] == found[1] and '"verdict"' in found[0]
    # A picture names the packages that are loaded where it is drawn.
    varies = r'[\d.]+ s\b|<time.*</time>|src="[^"]*"'
    pages = [re.sub(varies, "", (tmp_path / f"{jobs}.html").read_text()) for jobs in ("1", "2")]
    assert pages[0] == pages[1] and pages[0].count("<img") == 2


def test_a_diverged_run_leaves_its_claims_undecided_with_the_advice(capsys):
    """A claim that looks at values the run never reached would end the audit in a KeyError."""
    verdicts = audit(LAB, all_claims=True, changes={"fate": "diverged"}).verdicts
    assert [verdict.word for verdict in verdicts] == ["holds", "undecided", "fails"]
    assert "0.5 would be stable" in verdicts[1].notes and "seeds" not in verdicts[1].notes


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    """Truncating before writing would lose the previous result on a full disk."""
    target = tmp_path / "run.json"
    write_atomically(target, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, "new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_writing_through_a_link_keeps_the_link(tmp_path):
    """Replacing a link by a file would cut a person's results folder off."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_atomically(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"


def test_claims_as_json_are_what_is_known_before_a_run(capsys):
    """A listing without the edge or the replication cannot tell evidence from assertion."""
    assert cli.main(["claims", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == LISTED_KEYS for row in rows)
    assert [(row["id"], row["core"], row["experiment"], row["kind"], row["expected"]) for row in rows] == [
        ("T1", True, "decay", "theorem", "holds"), ("T2", False, "extra", "finding", "reported"),
        ("T3", False, "decay", "prediction", "fails"),
    ]  # fmt: skip
    (quantity,) = rows[0]["quantities"]
    assert quantity == {
        "name": "last loss", "groups": [], "unit": "", "edge": "at most its bound",
        "decided": "in every seed",
    }  # fmt: skip
    assert rows[0]["fails_in"] == ["nothing decays"] and rows[2]["because"] == "a loss is never negative"
    assert rows[0]["replication"] is None


def test_claims_show_their_replication_at_the_quick_preset(capsys, monkeypatch):
    """The numbers lie in the package, and nobody sees them."""
    found = Replication("holds", {"holds": 19, "fails": 1}, seeds=3, least=0.5, vacuous=15)
    asked = []

    def of(claim, experiment, settings):
        asked.append(settings == experiment.presets["quick"])
        return found

    monkeypatch.setattr("labkit.headless.listing.replication_of", of)
    assert cli.main(["claims", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["replication"] == {
        "expected": 19, "blocks": 20, "words": {"holds": 19, "fails": 1}, "seeds": 3, "least_distance": 0.5,
        "vacuous": 15,
    }  # fmt: skip
    assert cli.main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "expected: holds; 19 of 20 blocks" in out and all(asked)
    assert "lab 7, tiny: 1 theorem, 1 of them vacuous; 1 prediction" in out


def test_claims_as_text_name_kind_quantity_edge_and_source_and_count_the_kinds_apart(capsys):
    """A claim missing from the list is a claim nobody audits; a sum of kinds says nothing of any."""
    assert cli.main(["claims"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  T{n}", out, re.M) and f"(a paper, ({n}))" in out for n in (1, 2, 3))
    assert "T1* theorem · tiny/decay" in out and "T3  prediction · tiny/decay" in out
    assert "decided by last loss: at most its bound, in every seed" in out
    assert "expected: fails, because a loss is never negative; not replicated" in out
    assert "comes out otherwise where: nothing decays" in out
    assert "lab 7, tiny: 1 theorem; 1 prediction, 1 expected: fails; 1 finding, 1 expected: reported" in out


def test_what_needs_no_torch_does_not_import_it():
    """Three seconds of nothing, to be told that a name is misspelt."""
    calls = ["--help", "claims", "claims 4", "claims --json", "claims 9", "run --help", "run 9",
             "report 9 --html x", "replicate 9 --out x", "lab --help", "get --help", "get 9"]  # fmt: skip
    code = f"""if True:
        import sys, labkit.cli
        for words in {calls}:
            code = labkit.cli.main(words.split())
            assert code == (2 if "9" in words else 0), (words, code)
            assert "torch" not in sys.modules, words"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("J4* prediction") == 2 and done.stdout.count("  D1* ") == 1


@pytest.mark.parametrize("words", ["run 7", "report 7 --html page", "replicate 7 --out counts"])
def test_a_command_says_something_before_torch_is_imported(words, capsys, tmp_path, monkeypatch):
    """A terminal that stays empty for seconds, and Ctrl-C."""
    seen = []

    def load(lab):
        seen.append(capsys.readouterr().err)
        raise ValueError("enough")

    monkeypatch.setattr(labkit.labs, "load_lab", load)
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert seen == ["  0% loading torch (0 s)\n"]


def test_replicate_prints_a_line_a_claim_and_exits_1_below_the_share(capsys, tmp_path, monkeypatch):
    """A claim that flips with the seed, lost among those that do not."""
    words = ["replicate", "7", "--experiment", "decay", "--blocks", "4", "--out", str(tmp_path / "counts")]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert out == "T1   holds 4 of 4\nT3   fails 4 of 4\n"
    assert "100% 7 decay, seed 9: T1 holds, T3 fails" in err
    counts = json.loads((tmp_path / "counts" / "tiny.json").read_text())["claims"]
    counts["T1"]["blocks"]["0"]["word"] = "undecided"
    (tmp_path / "counts" / "tiny.json").write_text(json.dumps({"claims": counts}))
    assert cli.main(words) == 1
    assert capsys.readouterr().out == (
        "T1   holds 3 of 4 (undecided 1)\nT3   fails 4 of 4\nbelow 19 of 20: T1\n"
    )


def test_replicate_on_processes_gives_what_one_process_gives(capsys, tmp_path):
    """An experiment that cannot be sent, or processes that outlive the command."""
    words = ["replicate", "7", "--experiment", "decay", "--blocks", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "one")]) == 0
    assert cli.main([*words, "--out", str(tmp_path / "two"), "--jobs", "2"]) == 0
    first, second = (json.loads((tmp_path / name / "tiny.json").read_text()) for name in ("one", "two"))
    assert first.pop("seconds").keys() == second.pop("seconds").keys() == {"decay"}
    assert first == second and multiprocessing.active_children() == []


def test_replicate_keeps_what_is_done_when_interrupted(capsys, tmp_path, monkeypatch):
    """An hour of blocks lost by Ctrl-C, and no word on how to go on."""
    stopped = replace(EXTRA, presets={"quick": EXTRA.presets["quick"].replace(fate="interrupted")})
    monkeypatch.setattr("tests.tinylab.LAB", replace(LAB, experiments=(LAB.experiments[0], stopped)))
    assert cli.main(["replicate", "7", "--blocks", "2", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    claims = json.loads((tmp_path / "tiny.json").read_text())["claims"]
    assert {id: len(record["blocks"]) for id, record in claims.items()} == {"T1": 2, "T3": 2}


def test_replicate_writes_into_the_package_of_a_checkout_alone(capsys, monkeypatch):
    """Counts written into site-packages are gone with the next update, and change them for all users."""
    monkeypatch.setattr("labkit.headless.sweep.drain", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(notebooks, "find_checkout", lambda start: None)
    assert "name a folder" in fails_with(capsys, ["replicate", "7"])


def test_progress_redraws_on_a_terminal_and_prints_lines_elsewhere():
    """Carriage returns fill a log file; a line a frame floods it."""
    pipe = io.StringIO()
    with ProgressBar(pipe, clock=lambda: 0.0) as bar:
        for share in (0.0, 0.1, 0.2):
            bar(share, "decay")
    assert pipe.getvalue() == "  0% decay (0 s)\n"
    moments, slow = iter([0.0, 0.0, 9.0, 11.0, 12.0]), io.StringIO()
    with ProgressBar(slow, clock=lambda: next(moments)) as bar:
        for share in (0.0, 0.1, 0.2, 0.3):
            bar(share, "decay")
    assert slow.getvalue() == "  0% decay (0 s)\n 20% decay (11 s)\n"
    for seconds, share, told in (
        (60.0, 0.6, ""),
        (60.0, 0.2, ", about 4 min left"),
        (3600.0, 0.25, ", about 3.0 h left"),
    ):
        moments, long = iter([0.0, seconds]), io.StringIO()
        with ProgressBar(long, clock=partial(next, moments)) as bar:
            bar(share, "decay")
        assert long.getvalue().endswith(f" s{told})\n")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with ProgressBar(terminal, clock=lambda: 0.0) as bar:
        bar(0.5, "decay")
    assert "\r[###############...............]  50%" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


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
    for name in ("python", "torch", "device", "memory", "extra course", "browser", "notebooks"):
        assert re.search(rf"^\w+ +{name} ", out, re.M), name


def test_doctor_exits_1_when_a_needed_package_is_broken(monkeypatch, capsys):
    """A green doctor beside a broken NumPy sends people looking elsewhere."""
    broken = doctor.Finding("numpy", "missing", "no", "pip install numpy")
    monkeypatch.setattr(doctor, "examine", lambda: [broken])
    assert cli.main(["doctor"]) == 1


def test_doctor_names_every_extra_with_the_command_that_adds_it_to_this_environment(monkeypatch):
    """Somebody who adds it to another Python; an extra that nobody hears of."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def gone(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", gone)
    found = {finding.name: finding for finding in doctor._extras()}
    assert found.keys() == {f"extra {extra}" for extra in declared}
    for extra in declared:
        words = shlex.split(found[f"extra {extra}"].advice.partition(": ")[2])
        assert words[:4] == [sys.executable, "-m", "pip", "install"] and words[-1] == f"{ROOT}[{extra}]"


def test_doctor_says_what_it_finds_as_it_finds_it(monkeypatch, capsys):
    """Fifteen seconds of nothing while torch is imported."""
    seen = []

    def slow():
        yield doctor.Finding("python", "ok", "3")
        seen.append(capsys.readouterr().out)
        yield doctor.Finding("torch", "ok", "2")

    monkeypatch.setattr(doctor, "examine", slow)
    assert cli.main(["doctor"]) == 0 and "python" in seen[0]


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
