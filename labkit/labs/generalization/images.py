"""The paper's own kind of network: a VGG on images, with batch norm, on true and on random labels (E22; paper
2, Figs. 1 and 2).

The experiment on labels once more, looked at only at the stop and at one size: eight convolutions and two
dense layers at a sixteenth of the paper's width, on the digits as images. Batch norm is folded first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit import figures
from labkit.labs.generalization import label_panels, labels, shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob


@dataclass(frozen=True)
class Images(labels.Labels):
    network: str = knob("vgg", "the paper's vgg with batch norm and without dropout", choices=("vgg",))
    width: int = knob(
        4, "channels of the first stack; the paper has 64", slider=(2, 16), bounds=(1, None), scale="log2"
    )
    # Whole batches: batch norm sees others in training than it keeps.
    n: int = knob(128, "training samples m", slider=(64, 512), bounds=(20, None), step=64)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def levels(self) -> np.ndarray:
        return np.array([self.stop])


MEASURES = shared.NAMES | {"divergence": "KL at .05"}


def figure(frames: Frames, prediction: Prediction, settings: Images | None = None) -> figures.Chart:
    now = labels.newest(frames, prediction, settings)
    places = np.arange(len(MEASURES), dtype=float)
    ratios = np.concatenate([label_panels.gap(now, name) for name in MEASURES], axis=1)
    marks: list[figures.Mark] = [
        figures.Level(1.0, "equal"),
        figures.Points(places, ratios, "random / true labels", shared.RANDOM, line=False),
    ]
    return figures.Chart.of(
        settings, "A VGG that fits images with true labels and with random ones.",
        figures.Panel(
            "Each measure, random / true labels", marks, ylabel="ratio", yscale="log",
            xticks=list(zip(places.tolist(), MEASURES.values(), strict=True)),
            xlim=(-0.5, len(MEASURES) - 0.5),
        ),
        label_panels.planes(now, prediction),
    )  # fmt: skip


def _ordered(run: Run) -> Evidence:
    found = [labels.over_true(run.last(name)[:, 0, :, -1]) for name in MEASURES]
    return Evidence(np.stack(found, axis=1), checks=labels.fitted(run))


E22 = Claim(
    "E22", "finding",
    "On a VGG with batch norm, too, each norm over margin and the divergence at an expected sharpness of .05 "
    "are larger for random than for true labels.",
    "paper 2, Figs. 1 and 2",
    (Between("random over true labels", tuple(MEASURES.values()), low=labels.ABOVE, by=EVERY),),
    _ordered, "holds",
    {"holds": "all five order the labels on convolutions, too",
     "fails": "some measure does not order the labels on convolutions",
     "undecided": "a network is not fitted"},
    (World("labels not drawn anew: both networks learn the true ones", {"label_noise": 0.0, "seeds": 1}),),
)  # fmt: skip

IMAGES = Experiment(
    "images", "True or random labels, on a VGG", Images,
    {
        "quick": Images(seeds=2, stop=0.005, lr=0.01, epochs=300, ascent=10, draws=3, n_test=300),
        "paper": Images(**shared.CIFAR, n=40_000),
    },
    labels.prepare, labels.predict, labels.run, figure, (E22,),
    controls=("n", "width", "lr", "stop", "label_noise", "epsilon"),
)  # fmt: skip
