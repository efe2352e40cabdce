"""Rules decide as their examples say; a claim's verdict is the worst of its parts and says why."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.protocol.claims import Claim, Verdicts, judge
from labkit.protocol.experiment import Frame, Run
from labkit.protocol.rules import (
    EXAMPLES,
    AtMost,
    Check,
    Condition,
    Equals,
    Evidence,
    Exponent,
    Located,
    Monotone,
    Ordered,
    Reported,
    Rule,
)
from tests.tinylab import LAB

EXPERIMENT = LAB.experiments[0]


def decide(*pairs: tuple[Rule, Evidence], status: str = "done"):
    rules, evidence = tuple(rule for rule, _ in pairs), tuple(piece for _, piece in pairs)
    says = {"holds": "it does", "fails": "it does not"}
    claim = Claim("X1", "a statement", "a source", rules, lambda run: evidence, "holds", says)
    settings = EXPERIMENT.preset()
    return judge(claim, Run(EXPERIMENT, settings, {}, (Frame(0, {"a": np.zeros(3)}, status=status),)))


@pytest.mark.parametrize(("rule", "satisfied", "violated"), EXAMPLES, ids=lambda part: type(part).__name__)
def test_a_rule_tells_its_two_examples_apart(rule: Rule, satisfied: Evidence, violated: Evidence) -> None:
    """A rule that always says yes, or one that has no example."""
    assert decide((rule, satisfied)).word == "holds"
    assert decide((rule, violated)).word == "fails"


def test_every_rule_but_the_reporting_one_has_an_example() -> None:
    """A rule that nobody has seen fail."""
    assert {type(rule) for rule, _, _ in EXAMPLES} == {Equals, AtMost, Exponent, Ordered, Monotone, Located}


def test_an_exact_rule_fails_by_one_seed() -> None:
    """An average over seeds that hides the one violation of an inequality."""
    assert decide((AtMost(), Evidence([0.1, 0.1, 1.01], 1.0))).word == "fails"
    assert decide((AtMost(exact=False), Evidence([0.1, 0.1, 1.01], 1.0))).word == "undecided"


def test_rounding_does_not_break_an_inequality_and_a_real_excess_does() -> None:
    """A theorem refuted by the last bit, or a slack that swallows a violation."""
    assert decide((AtMost(), Evidence([1 + 1e-12], 1.0))).word == "holds"
    assert decide((AtMost(), Evidence([1 + 1e-6], 1.0))).word == "fails"


def test_a_statistical_rule_with_one_seed_is_undecided() -> None:
    """A verdict on a single run."""
    found = decide((Exponent(-1.2, -0.8), Evidence([-1.0])))
    assert found.word == "undecided" and "one seed" in found.note


def test_a_condition_that_is_not_met_puts_the_claim_out_of_regime() -> None:
    """A theorem blamed where it promises nothing."""
    unmet = (Condition("width", 10.0, 5.0),)
    found = decide((AtMost(), Evidence([2.0], 1.0, conditions=unmet)))
    assert found.word == "out of regime" and "width: 10 > 5" in found.note


def test_a_failed_check_is_undecided_and_says_what_to_do() -> None:
    """A verdict from chains that have not mixed."""
    check = (Check("mixing", 1.3, 1.05, "raise steps"),)
    found = decide((AtMost(), Evidence([0.5], 1.0, checks=check)))
    assert found.word == "undecided" and "raise steps" in found.note


def test_a_value_that_is_no_number_is_undecided() -> None:
    """NaN compares false, so a violated inequality would pass or fail by its sign."""
    assert decide((AtMost(), Evidence([np.nan, 0.0], 1.0))).word == "undecided"


@pytest.mark.parametrize(
    ("second", "word"),
    [
        (Evidence([2.0], 1.0), "fails"),
        (Evidence([0.5], 1.0, checks=(Check("c", 2, 1, "wait"),)), "undecided"),
        (Evidence([0.5], 1.0, conditions=(Condition("c", 2, 1),)), "out of regime"),
        (Evidence([0.5], 1.0), "holds"),
    ],
)
def test_a_claim_is_as_good_as_its_worst_part(second: Evidence, word: str) -> None:
    """A failing part hidden behind one that holds."""
    assert decide((Equals(0.1), Evidence([1.0], 1.0)), (AtMost(), second)).word == word


def test_a_diverged_run_does_not_hold() -> None:
    """A claim confirmed by the frames before the blow-up."""
    assert decide((Equals(0.1), Evidence([1.0], 1.0)), status="diverged").word == "undecided"


def test_vacuous_goes_with_holds_alone() -> None:
    """A failure excused as vacuous."""
    assert decide((AtMost(), Evidence([0.5], 9.0, vacuous=True))).line.startswith("X1 holds (vacuous)")
    assert not decide((AtMost(), Evidence([10.0], 9.0, vacuous=True))).vacuous


def test_a_line_holds_no_number_and_a_dict_holds_them_all() -> None:
    """A printed verdict that differs between machines, or a record that lost its values."""
    found = decide((Equals(0.1), Evidence([1.0, 1.05, 1.02], 1.0)))
    assert found.line == "X1 holds: it does"
    record = found.to_dict()
    assert record["measured"] == pytest.approx(1.0233, abs=1e-4) and record["spread"] > 0
    assert str(Verdicts([found, found])) == "X1 holds: it does\nX1 holds: it does"
    assert "<table>" in Verdicts([found])._repr_html_()


def test_a_reported_claim_is_never_judged() -> None:
    """A promise read into an observation."""
    assert decide((Reported(), Evidence([1.0, -1.0]))).word == "reported"
