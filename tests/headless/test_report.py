"""The report: nothing lost, nothing loaded, and a page even where an experiment fails."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

import labkit.labs
from labkit import cli
from labkit.figures import Chart, Measured, Panel, Predicted
from labkit.headless.audit import audit, audit_labs
from labkit.headless.report import report_html, to_html
from labkit.protocol.replication import Replication
from tests.tinylab import DECAY, EXTRA, LAB


def _raises(settings, prediction):
    yield from DECAY.run(settings, prediction)
    raise RuntimeError("the <matrix> is\nsingular")


def _missing(settings):
    raise OSError("there is no file mine.npz")


BROKEN = replace(
    LAB, number=8, name="broken", title="A broken lab",
    experiments=(DECAY, replace(EXTRA, run=_raises)),
)  # fmt: skip


TINY = "1 theorem checked; 1 prediction: 1 fails; 1 finding: 1 reported"


@pytest.fixture(autouse=True)
def two_labs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tests.brokenlab", types.SimpleNamespace(LAB=BROKEN))
    monkeypatch.setattr(labkit.labs, "LABS", {7: ("tiny", "tests.tinylab"), 8: ("broken", "tests.brokenlab")})


def pages():
    return {
        "one": to_html(audit(LAB, all_claims=True)),
        "diverged": to_html(audit(LAB, all_claims=True, changes={"fate": "diverged"})),
        "two": report_html(audit_labs([LAB, BROKEN])),
    }


@pytest.mark.parametrize("name", ["one", "diverged", "two"])
def test_page_loads_nothing_and_its_links_lead_somewhere(name):
    """A page that loads a picture is blank on a train; a dead anchor leaves a reader searching."""
    page = pages()[name]
    assert not re.search(r"(src|href)=[\"'](?!data:|#)|<script|@import|url\(", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    links = re.findall(r'href="#([^"]*)"', page)
    assert len(links) > 5 and set(links) <= set(ids)
    assert "a caption with &lt;angles&gt;" in page and "<angles>" not in page


def test_a_claim_leads_to_its_figure_and_the_figure_back():
    """A verdict without the curves it was read from has to be believed."""
    page = pages()["one"]
    row = page[page.index('id="tiny-T1"') :]
    assert 'href="#tiny-decay"' in row[: row.index("</tr>")]
    section = page[page.index('<section id="tiny-decay">') :]
    head = section[: section.index("<figure>")]
    assert 'href="#tiny-T1"' in head and 'href="#tiny-T3"' in head and 'href="#tiny-T2"' not in head


def test_page_tells_verdicts_in_words_and_names_the_surprises():
    """Colour alone tells nothing on a black-and-white print."""
    page = pages()["diverged"]
    assert "✓</span> holds" in page and "✗</span> fails" in page and "?</span> undecided" in page
    assert re.search(r"Other than expected: <a [^>]*>T2</a>\.", page)
    assert "reported expected" in page and "0.5 would be stable" in page and "raise seeds" not in page
    assert "ended as <b>diverged</b>" in page and "All as expected" not in page


def test_page_holds_prediction_measurement_settings_versions_seed_and_device():
    """What is not on the page cannot be repeated from it."""
    page = pages()["one"]
    claim = page[page.index('id="tiny-T1"') :]
    claim = claim[: claim.index("</tbody>")]
    for name, value in (
        ("kind", "theorem"), ("quantity", "last loss"), ("predicted", "0.5"), ("measured", "0.125<br>"),
        ("holds if", "at most its bound, in every seed"), ("replication", "not replicated"),
    ):  # fmt: skip
        assert f'data-name="{name}">{value}' in claim, name
    assert "In this run: it does." in claim and "bound/measured ≥ 4" in claim and "3 seeds" in claim
    for fact in ("<dt>width</dt><dd>8</dd>", "<dt>torch</dt>", "<dt>python</dt>", "seed 0", "cpu"):
        assert fact in page


def test_the_kinds_of_claims_are_counted_apart():
    """ "16 hold" of proved inequalities and of findings together says nothing of either."""
    page = pages()["two"]
    head = page[: page.index('<section id="tiny"')]
    assert "2 theorems checked; 2 predictions: 2 fail; 1 finding: 1 reported." in head
    for kind, told in (("theorems", "1 theorem checked"), ("predictions", "1 prediction: 1 fails"),
                       ("findings", "1 finding: 1 reported")):  # fmt: skip
        assert f'data-name="{kind}">{told}</td>' in head
    assert f"{TINY}. All as expected." in page
    assert not re.search(r"\d+ claims|\d+ holds?\b", page)


def test_a_replication_stands_beside_its_verdict(monkeypatch):
    """One run is no evidence for what other seeds do."""
    found = Replication("holds", {"holds": 19, "fails": 1}, seeds=3)
    monkeypatch.setattr("labkit.protocol.judging.replication_of", lambda *_: found)
    assert 'data-name="replication">holds in 19 of 20 blocks of 3 seeds</td>' in pages()["one"]


def test_an_experiment_that_raises_loses_no_other(tmp_path, capsys):
    """Seven minutes of good runs thrown away for one that failed."""
    html, record = tmp_path / "report.html", tmp_path / "report.json"
    assert cli.main(["report", "8", "7", "--html", str(html), "--json", str(record)]) == 1
    out = re.sub(r"\d+ s\b", "0 s", capsys.readouterr().out)  # more on a machine with other work
    assert (
        "8 broken: 1 theorem checked; 1 prediction: 1 fails; 0 s\n  not decided: T2\n" in out
        and f"7 tiny: {TINY}; 0 s" in out
    )
    assert "error in extra: RuntimeError: the <matrix> is singular" in out
    page = html.read_text()
    assert page.index('id="broken"') < page.index('id="tiny"')  # in the order asked for
    assert "RuntimeError: the &lt;matrix&gt; is singular" in page and page.count("not decided") >= 2
    assert page.count('src="data:image/png;base64,') == 3
    labs = json.loads(record.read_text())["labs"]
    assert [lab["lab"] for lab in labs] == ["broken", "tiny"] and labs[1]["failures"] == []
    assert labs[0]["failures"][0]["experiment"] == "extra" and labs[0]["failures"][0]["claims"] == ["T2"]
    assert [claim["id"] for claim in labs[0]["claims"]] == ["T1", "T3"]


def test_a_data_set_that_is_not_there_loses_no_other_experiment():
    """`prepare` is called for all experiments before the first run: its error must not end them all."""
    lab = replace(LAB, experiments=(replace(DECAY, prepare=_missing), EXTRA))
    (result,) = audit_labs([lab])
    assert [verdict.id for verdict in result.verdicts] == ["T2"]
    assert [failure.message for failure in result.failures] == ["OSError: there is no file mine.npz"]
    assert "there is no file mine.npz" in report_html([result])


def test_a_single_audit_still_raises():
    """`labkit run` and the notebooks must not take a failed run for a result."""
    with pytest.raises(RuntimeError, match="singular"):
        audit(BROKEN, all_claims=True)


def test_report_without_names_is_of_all_labs_and_a_name_given_twice_counts_once(tmp_path, capsys):
    """A lab on the page twice has its anchors twice."""
    path = tmp_path / "report.html"
    assert cli.main(["report", "--html", str(path), "--core"]) == 0
    assert capsys.readouterr().out.count("1 theorem checked") == 2
    assert cli.main(["report", "7", "tiny", "07", "--html", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"7 tiny: {TINY};")
    assert path.read_text().count('id="tiny-T1"') == 1


def test_ctrl_c_ends_with_130_and_a_page_that_says_what_is_missing(tmp_path, monkeypatch, capsys):
    """Half a report looks like a whole one; or what is done is lost."""
    path = tmp_path / "report.html"
    path.write_text("old")
    stopped = replace(EXTRA, presets={"quick": EXTRA.presets["quick"].replace(fate="interrupted")})
    lab = replace(BROKEN, experiments=(DECAY, stopped))
    monkeypatch.setitem(sys.modules, "tests.brokenlab", types.SimpleNamespace(LAB=lab))
    assert cli.main(["report", "7", "8", "--html", str(path)]) == 130
    assert list(tmp_path.iterdir()) == [path]
    assert "Not decided, as the run was interrupted" in path.read_text()
    assert "  extra: interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["9", "--html", "r.html"], "there is no lab '9'"),
        (["7", "--html", "r.html", "--preset", "paper"], "'paper' is not one of quick"),
        (["7", "--html", "r.html", "--seed", "-1"], "seed must be"),
        (["7", "--html", "no/such/folder/r.html"], "there is no folder"),
        (["7", "--html", "."], "is a folder"),
        (["7", "--html", "r", "--json", "./r"], "name the same file"),
        (["7"], "--html"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_runs(words, message, capsys, tmp_path, monkeypatch):
    """A preset that the last lab lacks, found out after the first four have run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("labkit.headless.carry.drain", lambda *_, **__: pytest.fail("it ran"))
    assert cli.main(["report", *words]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "loading" not in line]
    assert out == "" and len(lines) == 1 and re.search(message, lines[0]), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [0, 1])
def test_what_cannot_begin_is_told_before_anything_runs(threads, monkeypatch):
    """A data set that is not there, found out after half of the runs."""
    asked = []

    def prepare(settings):
        asked.append(settings)
        time.sleep(0.5 * (len(asked) > 1))  # meanwhile the caller hears of the first
        raise OSError("no data there")

    monkeypatch.setattr("labkit.headless.carry.drain", lambda *_, **__: pytest.fail("it ran"))
    several = [replace(EXTRA, name=f"extra-{number}", prepare=prepare) for number in range(9)]
    broken = replace(LAB, experiments=tuple(several))
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="no data there"):
        audit(broken, all_claims=True, executor=executor if threads else None)
    assert 1 <= len(asked) <= 1 + threads  # a thread may have begun with the second


def test_progress_is_of_the_whole():
    """A bar that starts again with every lab says nothing about when to come back."""
    told = []
    audit_labs([LAB, replace(BROKEN, experiments=LAB.experiments)], progress=lambda *seen: told.append(seen))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert {name for _, name in told} == {"7 decay", "7 extra", "8 decay", "8 extra", "done"}
    assert min(share for share, name in told if name == "8 decay") == pytest.approx(0.5)


def test_pictures_are_sharp_true_and_know_where_they_come_from():
    """A palette chosen badly changes the colour of a curve; a saved picture without its settings is lost."""
    shades = tuple(Measured(np.arange(9), np.arange(9) * k, label=f"{k}", color=k) for k in range(7))
    chart = Chart((Panel("many colours", shades, xlabel="step"),), caption="width 8")
    experiment = replace(DECAY, figure=lambda *_, **__: chart)
    page = to_html(audit(replace(LAB, experiments=(experiment,)), all_claims=True))
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(data) == 1 and len(data[0]) < 60_000
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(data[0])))
    assert picture.size == (960, 660)
    assert picture.text["Description"] == "width 8" and "'width': 8" in picture.text["Settings"]
    true = PIL.Image.open(io.BytesIO(Chart(chart.panels).png(480, 330, dpi=200))).convert("RGB")
    off = np.abs(np.asarray(picture.convert("RGB"), dtype=int) - np.asarray(true, dtype=int))
    assert off.max() <= 24 and (off > 8).mean() < 0.01


def test_a_picture_says_in_words_what_it_shows():
    """ "Figure 1" tells somebody who cannot see it nothing."""
    line = np.arange(3)
    marks = (Predicted(line, line, label="theory"), Measured(line, line, label="training"),
             Measured(line, line, label="test"), Measured(line, line))  # fmt: skip
    said = "Error. share against step. predicted: theory. measured: training, test"
    panel = Panel("Error", marks, xlabel="step", ylabel="share")
    assert panel.words == said and Chart((panel, Panel("Loss"))).words == f"Figure. {said}. Loss"
    assert all('<img alt="loss. predicted: theory' in page for page in pages().values())


def test_a_report_of_nothing_is_refused():
    """An empty page looks like a report."""
    with pytest.raises(ValueError, match="at least one audit"):
        report_html([])
