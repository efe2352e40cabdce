"""Rules decide as their examples say; a verdict is the worst of its parts, has its numbers, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labkit.protocol.claims import KINDS, WORDS, Claim, World
from labkit.protocol.experiment import Frame, Run
from labkit.protocol.judging import judge, judge_all, planted, run_in
from labkit.protocol.replication import Replication, mark
from labkit.protocol.rules import (
    EVERY,
    EXAMPLES,
    INTERVAL,
    AtMost,
    Between,
    By,
    Check,
    Condition,
    Equals,
    Evidence,
    Located,
    Reported,
    Rule,
)
from labkit.protocol.statistics import half_width
from labkit.protocol.verdicts import Verdict, Verdicts, summary
from tests import tinylab
from tests.tinylab import DECAY, LAB

TIGHT = AtMost("x")


def decide(
    *pairs: tuple[Rule, Evidence], kind: str = "finding", status: str = "done", **options: Any
) -> Verdict:
    rules, evidence = tuple(rule for rule, _ in pairs), tuple(piece for _, piece in pairs)
    options = {"says": {"holds": "it does", "fails": "it does not"}} | options
    claim = Claim("X1", kind, "a statement", "a source", rules, lambda run: evidence, **options)
    note = "learning rate 9 is too large; 0.5 would be stable" if status == "diverged" else ""
    frames = (Frame(0, {"a": np.zeros(3)}, status=status, note=note),)
    return judge(claim, Run(DECAY, DECAY.preset(), {}, frames))


def with_word(word: str, kind: str = "finding", **options: Any) -> Verdict:
    """A verdict that came out as this word."""
    apart = {
        "undecided": Evidence([0.5], 1.0, checks=(Check("c", 2, 1, "wait"),)),
        "out of regime": Evidence([0.5], 1.0, conditions=(Condition("c", 2, 1),)),
        "fails": Evidence([2.0], 1.0),
    }
    rule = Reported("x") if word == "reported" else TIGHT
    return decide((rule, apart.get(word, Evidence([0.5], 1.0))), kind=kind, **options)


@pytest.mark.parametrize(("rule", "satisfied", "violated"), EXAMPLES, ids=lambda part: type(part).__name__)
def test_a_rule_tells_its_two_examples_apart(rule: Rule, satisfied: Evidence, violated: Evidence) -> None:
    """A rule that always says yes."""
    assert decide((rule, satisfied)).word == "holds"
    assert decide((rule, violated)).word == "fails"


def test_every_rule_but_the_reporting_one_has_an_example() -> None:
    """A rule that nobody has seen fail."""
    assert {type(rule) for rule, _, _ in EXAMPLES} == set(Rule.__subclasses__()) - {Reported}
    assert Rule.__subclasses__() == [Equals, AtMost, Between, Located, Reported]


def test_a_rule_of_every_seed_fails_by_one() -> None:
    """An average over seeds that hides the one violation of an inequality."""
    assert decide((TIGHT, Evidence([0.1, 0.1, 1.01], 1.0))).word == "fails"
    found = decide((Between("x", low=0.0, by=EVERY), Evidence([1.0, 1.0, -0.1])))
    assert found.word == "fails" and found.reason == "x: beyond the edge in 1 of 3 seeds"


def test_rounding_does_not_break_an_inequality_and_a_real_excess_does() -> None:
    """A theorem refuted by the last bit, or a slack that swallows a violation."""
    assert decide((TIGHT, Evidence([1 + 1e-12], 1.0))).word == "holds"
    assert decide((TIGHT, Evidence([1 + 1e-6], 1.0))).word == "fails"


def test_an_infinite_bound_is_kept_without_complaint() -> None:
    """A vacuous bound of one seed that ends the judging in a warning about inf - inf."""
    found = decide((TIGHT, Evidence([0.5, 0.5, 0.5], [np.inf, 2.0, 1.0])))
    assert found.word == "holds" and found.parts[0].tightness == 2
    assert decide((TIGHT, Evidence([0.5], np.inf))).word == "holds"


def test_an_interval_needs_five_seeds() -> None:
    """Student's interval over three values, which follows the luck of one of them."""
    rule = Between("x", low=0.0)
    found = decide((rule, Evidence([1.0, 1.1, 0.9, 1.0])))
    assert found.word == "undecided" and "needs 5 seeds, this run has 4; raise seeds" in found.reason
    assert decide((rule, Evidence([1.0, 1.1, 0.9, 1.0, 1.0]))).word == "holds"


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("by", [EVERY, INTERVAL])
def test_bounded_margins_are_decided_clearly_or_said_to_be_too_few(count: int, by: By) -> None:
    """[.15, .15, .05]: an interval over three such values lies across zero where every seed is above."""
    margins = ([0.15, 0.15, 0.05] * 3)[:count]
    above, below = (
        decide((Between("gain", low=0.0, by=by), Evidence(sign * np.array(margins)))) for sign in (1, -1)
    )
    if by == INTERVAL and count < 5:
        assert {above.word, below.word} == {"undecided"} and "raise seeds" in above.reason
    else:
        assert (above.word, below.word) == ("holds", "fails")


def test_an_interval_across_the_edge_is_undecided_and_more_seeds_help() -> None:
    """A coin's word for a mean at the edge."""
    found = decide((Between("x", low=1.0, high=2.0), Evidence([0.8, 1.2, 0.9, 1.1, 1.0])))
    assert found.word == "undecided" and "lies across the edge; more seeds narrow it" in found.reason


def flip(rule: Rule, values: np.ndarray, unit: float) -> float:
    """By brute force: the smallest shift of all values, up or down, at which the word changes, in units."""
    word = decide((rule, Evidence(values))).word

    def first(steps: np.ndarray, sign: int) -> float:
        other = (step for step in steps if decide((rule, Evidence(values + sign * step * unit))).word != word)
        return float(next(other, np.inf))

    found = []
    for sign in (1, -1):
        coarse = first(np.arange(0.0, 12.0, 0.05), sign)
        found.append(first(np.linspace(coarse - 0.05, coarse, 51), sign) if np.isfinite(coarse) else np.inf)
    return min(found)


@pytest.mark.parametrize("by", [EVERY, INTERVAL])
@pytest.mark.parametrize(
    "mean", [-3.0, -1.2, -1.0, -0.6, -0.3, -0.05, 0.05, 0.2, 0.4, 0.9, 1.3, 4.0], ids=lambda mean: f"{mean:+}"
)
@pytest.mark.parametrize("high", [np.inf, 5.0], ids=["one side", "a band"])
def test_the_distance_is_to_the_place_where_the_word_changes(by: By, mean: float, high: float) -> None:
    """A distance to the edge of the band, by which an undecided verdict seems far and a near failure safe."""
    draw = np.random.default_rng(0).standard_normal(8)
    values = mean + (draw - draw.mean()) / draw.std(ddof=1)
    rule = Between("x", low=0.0, high=high, by=by)
    unit = 1.0 if by == EVERY else 1 / np.sqrt(8)  # of a seed, of the mean
    found = decide((rule, Evidence(values)))
    assert found.distance == pytest.approx(flip(rule, values, unit), abs=0.002)


def test_the_distance_of_several_columns_is_that_of_all_together() -> None:
    """The nearest column told, where another keeps the verdict as it is."""
    draw = np.random.default_rng(1).standard_normal((8, 3))
    values = np.array([-2.0, -0.4, 3.0]) + (draw - draw.mean(axis=0)) / draw.std(axis=0, ddof=1)
    rule = Between("x", groups=("a", "b", "c"), low=0.0)
    found = decide((rule, Evidence(values)))
    half = half_width(values)[0] * np.sqrt(8)
    assert found.word == "fails" and found.distance == pytest.approx(2 * np.sqrt(8) - half)
    values[:, 0] += 2.0  # across the edge with two columns, and above with the third
    found = decide((rule, Evidence(values)))
    assert found.word == "undecided"
    assert found.distance == pytest.approx(min(half + 0.4 * np.sqrt(8), half - 0.4 * np.sqrt(8)))


def test_the_distance_of_a_claim_is_that_of_its_nearest_part() -> None:
    """A part that stands at its edge hidden behind one that stands far from it."""
    near, far = Evidence([0.1, 0.2, 0.3]), Evidence([5.1, 5.2, 5.3])
    found = decide((Between("x", low=0.0, by=EVERY), near), (Between("y", low=0.0, by=EVERY), far))
    assert found.distance == pytest.approx(1.0)


def test_the_tightness_of_a_bound_is_that_of_its_tightest_entry() -> None:
    """ "Holds" of a bound ten times too large, without a word on it; a tightness for what is no bound."""
    found = decide((TIGHT, Evidence([[1.0, 5.0], [2.0, 8.0]], 10.0)))
    assert found.parts[0].tightness == 1.25 and "bound/measured ≥ 1.25" in str(found.parts[0])
    assert decide((TIGHT, Evidence([0.0, 0.0], 10.0))).parts[0].tightness == np.inf
    assert decide((Equals("x", tolerance=1), Evidence([1.0], 1.0))).parts[0].tightness is None


def test_a_condition_that_is_not_met_puts_the_claim_out_of_regime() -> None:
    """A theorem blamed where it promises nothing."""
    found = decide((TIGHT, Evidence([2.0], 1.0, conditions=(Condition("width", 10.0, 5.0),))))
    assert found.word == "out of regime" and "width: 10 > 5" in found.reason


def test_a_failed_check_is_undecided_and_says_what_to_do() -> None:
    """A verdict from chains that have not mixed."""
    found = decide((TIGHT, Evidence([0.5], 1.0, checks=(Check("mixing", 1.3, 1.05, "raise steps"),))))
    assert found.word == "undecided" and "mixing: 1.3 > 1.05; raise steps" in found.reason


def test_a_value_that_is_no_number_is_undecided() -> None:
    """NaN compares false, so a violated inequality would pass or fail by its sign."""
    found = decide((TIGHT, Evidence([np.nan, 0.0], 1.0)))
    assert found.word == "undecided" and "not a number" in found.reason


@pytest.mark.parametrize("word", ["fails", "undecided", "out of regime", "holds"])
def test_a_claim_is_as_good_as_its_worst_part(word: str) -> None:
    """A failing part hidden behind one that holds."""
    part = with_word(word)
    second = (part.claim.rules[0], part.claim.measure(None)[0])
    assert decide((Equals("y", tolerance=0.1), Evidence([1.0], 1.0)), second).word == word


@pytest.mark.parametrize("values", [[1.0], [1.0] * 3, [-1.0, 1.0] * 4], ids=["one", "few", "across"])
def test_a_diverged_run_is_undecided_and_advised_of_the_learning_rate_alone(values: list[float]) -> None:
    """A claim confirmed by the frames before the blow-up; more seeds advised, which would diverge, too."""
    for rule in (Between("x", low=0.0), Between("x", low=-9.0, by=EVERY), Reported("x")):
        found = decide((rule, Evidence(values)), status="diverged")
        assert found.word == "undecided" and "0.5 would be stable" in found.reason
        assert "seeds" not in found.notes


def test_a_diverged_run_that_never_measured_it_is_undecided_and_any_other_raises() -> None:
    """A traceback where training blew up; a claim that asks for a misspelt value, undecided for ever."""

    def missing(run: Run) -> Evidence:
        return Evidence(run.last("never"))

    claim = Claim("X1", "finding", "a statement", "a source", (Between("x", low=0.0),), missing)
    diverged = Run(DECAY, DECAY.preset(), {}, (Frame(0, status="diverged", note="use 0.5"),))
    found = judge(claim, diverged)
    assert found.word == "undecided" and "use 0.5" in found.reason
    assert str(found.parts[0]).startswith("x: not measured; holds if")
    with pytest.raises(KeyError):
        judge(claim, Run(DECAY, DECAY.preset(), {}, (Frame(0, status="done"),)))


def test_evidence_for_another_number_of_rules_is_refused() -> None:
    """A rule that is never judged."""
    claim = Claim("X1", "finding", "s", "t", (TIGHT, TIGHT), lambda run: Evidence([0.5], 1.0))
    with pytest.raises(ValueError, match="1 pieces of evidence for 2 rules"):
        judge(claim, Run(DECAY, DECAY.preset(), {}, (Frame(0, status="done"),)))


def test_vacuous_goes_with_holds_alone() -> None:
    """A failure excused as vacuous."""
    assert decide((TIGHT, Evidence([0.5], 9.0, vacuous=True))).line.startswith("X1 holds (vacuous): ")
    assert not decide((TIGHT, Evidence([10.0], 9.0, vacuous=True))).vacuous


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_a_sentence_and_a_surprise_says_so(word: str) -> None:
    """The statement printed beside *undecided*, as if confirmed; a surprise that looks planned."""
    found = with_word(word, says={})
    assert (found.sentence == "a statement") == (word in ("holds", "reported"))
    assert found.line == f"X1 {word}{'' if word == 'holds' else ' (holds expected)'}: {found.sentence}"
    assert with_word(word, expected=word, because="so it is").shown == word
    assert with_word(word, says={word: "as said"}).sentence == "as said"


def test_a_line_holds_no_number_and_a_dict_holds_them_all() -> None:
    """A printed verdict that differs between machines, or a record that lost its values or its settings."""
    rule = Equals("x", groups=("n = 1", "n = 2"), unit="s", tolerance=0.1)
    found = decide((rule, Evidence([[1.0, 2.0], [1.05, 2.1], [1.02, 2.0]], [1.0, 2.0], note="so")))
    assert (
        found.line == "X1 holds: it does" and str(Verdicts([found, found])) == f"{found.line}\n{found.line}"
    )
    record = found.to_dict()
    assert record["experiment"] == "decay" and record["settings"] == DECAY.preset().to_dict()
    (part,) = record["quantities"]
    assert part["labels"] == ["n = 1", "n = 2"] and part["unit"] == "s" and part["seeds"] == 3
    assert part["measured"] == pytest.approx([1.0233, 2.0333], abs=1e-4) and part["predicted"] == [1, 2]
    assert min(part["spread"]) > 0 and part["edge"] == "within 10 % of the prediction"
    assert part["decided"] == "in every seed" and part["verdict"] == "holds" and part["note"] == "so"


def test_a_part_reads_as_a_sentence_with_its_name() -> None:
    """Numbers in a row, of which nobody knows what they are."""
    rank = decide((Equals("rank of J", tolerance=0.02), Evidence([90.0, 90.0], 90.0)))
    assert str(rank.parts[0]) == (
        "rank of J: predicted 90, measured 90 (2 seeds); holds if within 2 % of the prediction, in every seed"
    )
    growth = decide((Between("growth", low=1.0), Evidence(1.413 + 0.001 * np.arange(-2.0, 3.0))))
    assert str(growth.parts[0]) == (
        "growth: measured 1.41 ± 0.002 (5 seeds); holds if at least 1, by the 95 % interval over seeds"
    )
    assert str(with_word("reported").parts[0]) == (
        "x: predicted 1, measured 0.5 (1 seed); reported as found, not judged"
    )


def test_equal_values_have_no_spread() -> None:
    """± 1e-16 beside a constant."""
    assert decide((Between("x", low=0.0, by=EVERY), Evidence([0.67, 0.67, 0.67]))).parts[0].spread == (0.0,)


def test_of_a_long_row_the_entry_nearest_to_its_edge_is_shown() -> None:
    """Forty numbers nobody reads, or the one that is safest."""
    values = np.full((2, 40), 0.1)
    values[0, 7], values[1, 9] = 0.8, 0.6
    part = decide((TIGHT, Evidence(values, 1.0))).parts[0]
    assert part.labels == ("nearest to its edge",) and part.measured == (pytest.approx(0.7),)


def test_the_table_has_every_number_by_name_with_its_edge() -> None:
    """The word alone under a figure, and the numbers in a file nobody opens."""
    rule = Equals("rank <of> J", groups=("a", "b"), tolerance=0.02)
    found = decide(
        (rule, Evidence([[90.0, 45.0], [91.0, 45.0]], 90.0)), (Reported("y", unit="s"), Evidence([3.0]))
    )
    table = Verdicts([found])._repr_html_()
    for text in (
        "rank &lt;of&gt; J", "a: 90<br>b: 90", "a: 90.5 ± 0.7<br>b: 45", "within 2 % of the prediction",
        "y (s)", "fails (holds expected)", "beyond the edge in 2 of 2 seeds", "finding", "not replicated",
    ):  # fmt: skip
        assert text in table, text
    assert table.count("<tr>") == 3 and table.count("rowspan='2'") == 3
    assert "bound/measured ≥ 2" in Verdicts([with_word("holds")])._repr_html_()


def test_a_verdict_carries_the_replication_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of other settings beside a verdict."""
    asked: list[Any] = []

    def of(*about: Any) -> Replication:
        asked.append(about)
        return Replication("holds", {"holds": 19, "fails": 1}, 3)

    monkeypatch.setattr("labkit.protocol.judging.replication_of", of)
    found = with_word("holds")
    assert asked == [(found.claim, DECAY, DECAY.preset())]
    assert "19 of 20 blocks" in Verdicts([found])._repr_html_()
    assert found.to_dict()["replication"]["words"] == {"holds": 19, "fails": 1}


def test_a_mark_changes_with_settings_and_rules_and_not_with_seed_device_or_words() -> None:
    """A record that outlives what it was made with, or one thrown away because a sentence was mended."""
    claim, settings = DECAY.claims[0], DECAY.preset()
    marks = {
        mark(claim, settings), mark(claim, settings.replace(width=9)), mark(claim, settings.replace(seeds=4)),
        mark(Claim("T1", "theorem", "s", "t", (AtMost("last loss", slack=0.1),), claim.measure), settings),
        mark(Claim("T1", "theorem", "s", "t", (Located("last loss"),), claim.measure), settings),
    }  # fmt: skip
    assert len(marks) == 5
    assert mark(claim, settings.replace(seed=5)) == mark(claim, settings)
    reworded = Claim("T1", "theorem", "other words", "u", claim.rules, claim.measure, says={"holds": "yes"})
    assert mark(reworded, settings) == mark(claim, settings)
    # NumPy 2 shows np.float64(0.5) where NumPy 1 showed 0.5.
    low = [mark(Claim("T1", "finding", "s", "t", (Between("x", low=edge),), claim.measure), settings)
           for edge in (0.5, np.float64(0.5))]  # fmt: skip
    assert low[0] == low[1]


def test_a_summary_counts_the_kinds_apart() -> None:
    """ "16 hold" of proved inequalities and observations together."""
    vacuous = decide((TIGHT, Evidence([0.5], 1.0, vacuous=True)), kind="theorem")
    theorems = [with_word("holds", "theorem")] * 3 + [vacuous] * 2
    predictions = [with_word("holds", "prediction")] * 5 + [with_word("fails", "prediction")]
    findings = [with_word("holds")] * 3 + [with_word("fails")]
    assert summary([*theorems, *predictions, *findings]) == (
        "5 theorems checked, 2 of them vacuous; 6 predictions: 5 hold, 1 fails; "
        "4 findings: 3 replicate, 1 does not replicate"
    )
    assert summary(iter(theorems[:1])) == "1 theorem checked"
    assert Verdicts([with_word("fails", "theorem"), with_word("undecided", "theorem")]).summary == (
        "2 theorems checked, 1 fails, 1 undecided"
    )
    assert summary(findings[2:] + [with_word("undecided"), with_word("reported")]) == (
        "4 findings: 1 replicates, 1 does not replicate, 1 undecided, 1 reported"
    )


def test_kinds_and_expected_words_are_checked() -> None:
    """A theorem misspelt, and counted nowhere."""
    with pytest.raises(ValueError, match="kind must be one of theorem, prediction, finding; got 'theorm'"):
        Claim("X1", "theorm", "s", "t", (), lambda run: ())
    with pytest.raises(ValueError, match="expected must be one of holds, .*; got 'hold'"):
        Claim("X1", KINDS[0], "s", "t", (), lambda run: (), expected="hold")


def test_a_world_turns_the_verdict_and_is_gone_afterwards() -> None:
    """A fault that changes nothing, or that every later run has."""
    claim = DECAY.claims[0]
    (world,) = claim.worlds
    before = tinylab.decayed
    assert judge(claim, run_in(world, DECAY)).word == world.word == "fails"
    assert tinylab.decayed is before
    changed = run_in(World("wider", changes={"width": 9}), DECAY)
    assert changed.settings.width == 9 and judge_all(changed, ("T1",))[0].word == "holds"


def test_planted_faults_are_taken_out_after_an_exception_too() -> None:
    """A test that fails in a broken world, and breaks all that come after it."""
    before = tinylab.decayed
    twice = {"tests.tinylab:decayed": tinylab.constant, "tests.tinylab:LAB.number": lambda number: number + 1}
    with pytest.raises(AttributeError), planted(twice):  # A frozen lab takes no other number …
        pass
    assert tinylab.decayed is before and LAB.number == 7  # … and the first fault is gone all the same.
    with pytest.raises(RuntimeError), planted({"tests.tinylab:decayed": tinylab.constant}):
        assert tinylab.decayed(3) == 1.0
        raise RuntimeError
    assert tinylab.decayed is before
    with pytest.raises(AttributeError), planted({"tests.tinylab:decaid": tinylab.constant}):
        pass
