"""Lab 2, exploring generalization (paper 2): one module an experiment, in the order of the story."""

from labkit.labs.generalization.card import score_card
from labkit.labs.generalization.conditions import CONDITIONS
from labkit.labs.generalization.confusion import CONFUSION
from labkit.labs.generalization.depth import DEPTH
from labkit.labs.generalization.images import IMAGES
from labkit.labs.generalization.label_panels import across_stops
from labkit.labs.generalization.labels import LABELS
from labkit.labs.generalization.layers import LAYERS
from labkit.labs.generalization.perturbation import PERTURBATION
from labkit.labs.generalization.rescaling import RESCALING
from labkit.labs.generalization.shared import PAPER
from labkit.labs.generalization.width import WIDTH
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=2,
    name="generalization",
    title="Exploring generalization",
    paper=PAPER,
    experiments=(LABELS, IMAGES, RESCALING, CONFUSION, WIDTH, LAYERS, CONDITIONS, PERTURBATION, DEPTH),
    core=("E1", "E2", "E3", "E6", "E7", "E8", "E9", "E10"),
    notebook="02_exploring_generalization",
)

__all__ = [
    "CONDITIONS", "CONFUSION", "DEPTH", "IMAGES", "LAB", "LABELS", "LAYERS", "PERTURBATION",
    "RESCALING", "WIDTH", "across_stops", "score_card",
]  # fmt: skip
