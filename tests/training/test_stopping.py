"""Rules that end training early."""

import pytest
import torch

from labkit.models import mlp
from labkit.protocol.experiment import last
from labkit.training import LossBelow, MarginAtLeast, margins, train
from tests.training.cases import data, linear


def test_margins_are_the_own_output_minus_the_best_other() -> None:
    """The own class counted among the others: margins that are never positive."""
    outputs = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]]])
    assert margins(outputs, torch.tensor([[0, 2]])).tolist() == [[1.0, -6.0]]
    one_hot = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]])
    assert margins(outputs, one_hot).tolist() == [[1.0, -6.0]]


def test_with_one_output_the_margin_is_the_output_times_the_sign() -> None:
    """A class number where a sign is meant."""
    outputs, signs = torch.tensor([[[3.0], [-2.0]]]), torch.tensor([[[1.0], [1.0]]])
    assert margins(outputs, signs).tolist() == [[3.0, -2.0]]


def test_a_share_of_the_points_is_enough_when_it_is_exactly_reached() -> None:
    """99 of 100 points refused as .99 rounds up in float32, or 98 accepted."""
    y = torch.zeros(1, 100, dtype=torch.int64)
    for wrong, share, there in ((1, 0.99, True), (2, 0.99, False), (0, 1.0, True), (1, 1.0, False)):
        outputs = torch.tensor([10.0, 0.0]).repeat(1, 100, 1)
        outputs[0, :wrong] = 0
        assert MarginAtLeast(10, share).reached(outputs, y, torch.zeros(1)).tolist() == [there]


@pytest.mark.parametrize("batch_size", [None, 8])
def test_training_stops_at_the_margin_and_not_before(batch_size: int | None) -> None:
    """A rule looked at on the minibatch only, or the step after."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % 3
    x = 2 * torch.eye(3)[y] + 0.1 * torch.randn(30, 3, generator=generator)
    model = mlp(3, 16, 1, 3)
    rule = MarginAtLeast(2.0, 0.9)
    frames = list(
        train(model, x, y, loss="cross-entropy", lr=0.1, epochs=2000, batch_size=batch_size, stop=rule)
    )
    assert frames[-1].status == "done" and frames[-1].step < 2000
    assert "0.9 of the points with margin at least 2: reached after" in frames[-1].note
    reached = margins(model(x).unsqueeze(0), y.unsqueeze(0))[0] >= 2
    assert float(reached.double().mean()) >= 0.9
    # One check earlier it was not reached: a shorter run of the same seed shows it.
    unit = 1 if batch_size is None else 4
    assert frames[-1].step % unit == 0
    shorter = mlp(3, 16, 1, 3)
    list(
        train(
            shorter, x, y, loss="cross-entropy", lr=0.1, batch_size=batch_size, steps=frames[-1].step - unit
        )
    )
    early = margins(shorter(x).unsqueeze(0), y.unsqueeze(0))[0] >= 2
    assert float(early.double().mean()) < 0.9


def test_a_minibatch_run_looks_at_the_loss_of_the_whole_set() -> None:
    """One lucky batch below the value ends the run."""
    x, y = data(n=40)
    model = linear()
    best = float((x @ torch.linalg.lstsq(x, y).solution - y).square().mean())
    rule = LossBelow(1.05 * best)
    frames = list(train(model, x, y, loss="mean", lr=0.05, epochs=100, batch_size=4, stop=rule, measure_at=1))
    assert "reached after" in frames[-1].note
    assert float((model(x) - y).detach().square().mean()) < rule.value
    # A batch of four is below it long before.
    assert min(frame.values["loss"][0] for frame in frames[: len(frames) // 2]) < rule.value
    assert int(last(frames, "steps")[0]) == frames[-1].step > 0


def test_a_rule_that_holds_at_once_stops_before_the_first_step() -> None:
    """A step taken from a point where nothing was to be done."""
    x, y = data()
    model = linear()
    before = model.layers[0].weight.detach().clone()
    (frame,) = train(model, x, y, lr=0.01, steps=10, stop=LossBelow(1e6))
    assert frame.step == 0 and frame.status == "done" and torch.equal(model.layers[0].weight, before)


def test_a_rule_that_is_not_reached_says_so() -> None:
    """A run that ended by its limit taken for one that arrived."""
    x, y = data()
    frames = list(train(linear(), x, y, lr=1e-4, steps=5, stop=[LossBelow(1e-9), MarginAtLeast(10)]))
    assert frames[-1].note == "loss below 1e-09 or all points with margin at least 10: not reached in 5 steps"


def test_a_rule_reached_at_the_last_step_counts() -> None:
    """The final weights not looked at."""
    x, y = data()
    losses = [frame.values["loss"][0] for frame in train(linear(), x, y, lr=0.01, steps=6, measure_at=1)]
    level = (losses[5] + losses[6]) / 2
    frames = list(train(linear(), x, y, lr=0.01, steps=6, stop=LossBelow(level)))
    assert frames[-1].step == 6 and "reached after 6 steps" in frames[-1].note


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossBelow(-1), "value: got -1"),
        (lambda: MarginAtLeast(1, 1.5), "share: got 1.5"),
        (lambda: MarginAtLeast(float("nan")), "gamma: got nan"),
    ],
)
def test_impossible_rules_are_refused(make, message: str) -> None:
    """A run that can never stop."""
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_say_themselves() -> None:
    """A note that prints an object's address."""
    assert repr(LossBelow(0.1)) == "LossBelow(value=0.1)"
    assert str(MarginAtLeast(10, 0.99)) == "0.99 of the points with margin at least 10"
