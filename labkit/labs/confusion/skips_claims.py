"""What `skips` and `ending` are judged by (C9, C10, C16, C21)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labkit.labs.confusion import shared
from labkit.labs.confusion.skips_panels import BOTH, KINDS, NORM, PLAIN, SKIP, stuck
from labkit.measure.confusion import Confusion
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Run
from labkit.protocol.rules import EVERY, Between, Check, Evidence

ROOM = "labkit.labs.confusion.skips"  # where faults are
STAGES = ("least depth to last but one", "last but one to greatest")


@shared.after
def opposed_for_agreed(found: Confusion) -> Confusion:
    """A fault for a world: the smallest cosine is the mean one with its sign turned."""
    return replace(found, minimum_cosine=-found.mean_cosine)


def _whole(run: Run) -> tuple[Check, ...]:
    settings = run.settings
    return (
        Check("kinds of networks", 4, len(settings.kinds), "take families all"),
        Check("depths", 2, len(settings.values(settings.depths)), "take several depths"),
    )


def _note(run: Run) -> str:
    def row(name: str, digits: int = 2) -> str:
        return "; ".join(
            f"{KINDS[kind]} {', '.join(f'{value:.{digits}f}' for value in values)}"
            for kind, values in zip(run.settings.kinds, run.last(name).mean(axis=0), strict=True)
        )

    rates = ", ".join(f"{rate:g}" for rate in run.last("rate")[0, :, -1])
    return (
        f"depths {run.settings.depths}: least cosine before training {row('start_minimum')}; after "
        f"{row('end_minimum')}, mean {row('end_mean')}; training loss {row('loss')}; test error "
        f"{row('error')}; rates at the greatest depth {rates}; "
        f"{stuck(run.frames, run.settings) or 'all learned'}"
    )


def _order(run: Run) -> tuple[Evidence, ...]:
    if not all(check.met for check in _whole(run)):
        return (Evidence(checks=_whole(run)),) * 4
    start, end, loss = (run.last(name) for name in ("start_minimum", "end_minimum", "loss"))
    deepest, worse = loss[..., -1], loss[..., -1] - loss[..., 0]
    return (
        Evidence(start[:, BOTH, -1] - start[:, PLAIN, -1], note=_note(run)),
        Evidence(np.stack([deepest[:, PLAIN] - deepest[:, NORM], deepest[:, PLAIN] - deepest[:, BOTH],
                           deepest[:, SKIP] - deepest[:, BOTH], deepest[:, NORM] - deepest[:, BOTH]], 1)),
        Evidence(worse[:, NORM] - worse[:, BOTH]),
        Evidence(end[:, BOTH, -1]),
    )  # fmt: skip


def _after(run: Run) -> Evidence:
    kinds = _whole(run)[:1]
    if not kinds[0].met:
        return Evidence(checks=kinds)
    end = run.last("end_minimum")[..., 0]
    return Evidence(end[:, [SKIP, NORM, BOTH]] - end[:, [PLAIN]], note=_note(run))


def _deeper(run: Run) -> tuple[Evidence, Evidence]:
    depths = run.settings.values(run.settings.depths)
    several = Check("depths of plain networks", 3, len(depths) * (PLAIN in run.settings.kinds), "take three")
    if not several.met:
        return (Evidence(checks=(several,)),) * 2
    end, loss = (run.last(name)[:, 0][:, [0, -2, -1]] for name in ("end_minimum", "loss"))
    return Evidence(-np.diff(end, axis=1), note=_note(run)), Evidence(np.diff(loss, axis=1))


def _learned(run: Run) -> tuple[Evidence, ...]:
    if not all(check.met for check in _whole(run)):
        return (Evidence(checks=_whole(run)),) * 3
    decades, mean = np.log10(np.maximum(run.last("loss"), shared.TINY)), run.last("end_mean")
    deepest, grown = decades[..., -1], decades[..., -1] - decades[..., 0]
    return (
        Evidence(deepest[:, [PLAIN]] - deepest[:, [SKIP, BOTH]], note=_note(run)),
        Evidence(grown[:, [PLAIN]] - grown[:, [BOTH]]),
        Evidence(mean[:, PLAIN, -1] - mean[:, PLAIN, 0]),
    )


# The mean pair in place of the worst turns neither C10 nor C21: the means are ordered alike.
_ALL_ALIKE = World(
    "every minibatch's gradient replaced by their mean", faults={f"{ROOM}:confusion": shared.all_alike}
)

C10 = Claim(
    "C10", "finding",
    "At the greatest depth, the least cosine of minibatch gradients before training is at least .1 higher "
    "with both skips and batch norm than with neither; with both, training ends at the lowest loss, "
    "by .2 or more, and with batch norm alone below the plain network, by as much; with batch norm alone the "
    "loss rises with depth by .2 more than with both; and the least cosine with both is above −.3 after "
    "training.",
    "paper 5, Figs 4 and 15, §5, §A.6",
    (
        Between("least cosine at the start, greatest depth, both minus neither", low=0.1, by=EVERY),
        Between("training loss at the greatest depth", ("neither − batch norm", "neither − both",
                "skips − both", "batch norm − both"), low=0.2, by=EVERY),
        Between("rise of the loss with depth, batch norm alone minus both", low=0.2, by=EVERY),
        Between("least cosine after training with both, greatest depth", low=-0.3, by=EVERY),
    ),
    _order, "holds",
    {"holds": "skips and batch norm together keep cosines up before training, and deep networks trainable",
     "fails": "the kinds of networks are not ordered so",
     "undecided": "the order takes all four kinds of networks, at several depths"},
    worlds=(World("a single step of training", {"steps": 1}), _ALL_ALIKE),
)  # fmt: skip
C16 = Claim(
    "C16", "finding",
    "After training, at the least depth, where the plain network has learned something, too, the least "
    "cosine of minibatch gradients is lowest, by .1 or more, with neither skips nor batch norm.",
    "paper 5, Fig. 4 (middle), Fig. 15, §5",
    (
        Between("least cosine after training, least depth, minus that with neither",
                ("skips", "batch norm", "both"), low=0.1, by=EVERY),
    ),
    _after, "fails",
    {"holds": "the plain network is the most confused",
     "fails": "the plain network learns late, and while its loss is high its minibatches agree: ask for the "
              "loss beside the cosine",
     "undecided": "the order takes all four kinds of networks"},
    worlds=(World("one step, at a depth where all kinds are at their start", {"depths": "22", "steps": 1},
                  word="holds"),),
    because="training is short: the plain network still has a loss several times that of the others, and its "
            "minibatch gradients point one way",
)  # fmt: skip

C9 = Claim(
    "C9", "finding",
    "At the end of training, each network at its own best learning rate, a deeper plain network is more "
    "confused and has a higher loss: from the least depth to the last but one and on to the greatest the "
    "smallest cosine of minibatch gradients falls, by .05 or more each time, and the loss does not fall.",
    "paper 5, §5, Figs 2, 3, 5, 6",
    (
        Between("fall of the smallest cosine of minibatch gradients at the end", STAGES, low=0.05, by=EVERY),
        Between("rise of the training loss at the end", STAGES, low=0.0, by=EVERY),
    ),
    _deeper, "fails",
    {"holds": "the deeper the network, the more confused it ends, and with the higher loss",
     "fails": "deeper networks end with the higher loss, and not with the lower cosines: what has learned "
              "little has minibatches that agree",
     "undecided": "it takes plain networks of three depths or more"},
    worlds=(
        World("minibatches that oppose each other by as much as they agree",
              {"families": "neither"}, {f"{ROOM}:_look": opposed_for_agreed}, word="holds"),
    ),
    because="the loss rises with depth, and with it what all minibatches have in common, their mean gradient",
)  # fmt: skip
C21 = Claim(
    "C21", "finding",
    "Skips keep deep networks trainable, alone and with batch norm: at the greatest depth, each at its best "
    "rate, they end at a third of the plain network's loss or less; the plain network's loss rises with "
    "depth at least three times as much as with both. And the deep plain network, which has learned least, "
    "has minibatches that agree more than those of the shallow one, by .05 or more in the mean cosine.",
    "paper 5, Figs 4, 5, 15, §5, §A.1",
    (
        Between("log₁₀ of the loss at the greatest depth", ("neither − skips", "neither − both"), low=0.5,
                by=EVERY),
        Between("rise of log₁₀ loss with depth, neither − both", low=0.5, by=EVERY),
        Between("mean cosine at the end, neither, greatest depth − least", low=0.05, by=EVERY),
    ),
    _learned, "holds",
    {"holds": "what trains is told by the loss: cosines at the end are high where nothing was learned",
     "fails": "skips do not keep the loss low, or the deep plain network does not agree more",
     "undecided": "it takes all four kinds of networks, at several depths"},
    worlds=(World("a single step of training", {"steps": 1, "looks": 0}), _ALL_ALIKE),
)  # fmt: skip
