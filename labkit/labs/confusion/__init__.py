"""Lab 5, gradient confusion (paper 5): one module an experiment, in the order of the story."""

from labkit.labs.confusion.batches import BATCHES
from labkit.labs.confusion.diversity import DIVERSITY
from labkit.labs.confusion.hessian import HESSIAN
from labkit.labs.confusion.initialization import INITIALIZATION
from labkit.labs.confusion.networks import NETWORKS
from labkit.labs.confusion.rate import RATE
from labkit.labs.confusion.regression import REGRESSION
from labkit.labs.confusion.scale import SCALE
from labkit.labs.confusion.shared import PAPER
from labkit.labs.confusion.skips import ENDING, SKIPS
from labkit.labs.confusion.sphere import SPHERE
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=5,
    name="confusion",
    title="Gradient confusion",
    paper=PAPER,
    experiments=(
        REGRESSION, SPHERE, RATE, INITIALIZATION, SCALE, NETWORKS, ENDING, SKIPS, BATCHES,
        DIVERSITY, HESSIAN,
    ),
    core=("C1", "C2", "C3", "C5", "C7", "C8", "C11", "C17", "C18", "C19", "C20", "C21"),
    notebook="05_gradient_confusion",
)  # fmt: skip

__all__ = [
    "BATCHES", "DIVERSITY", "ENDING", "HESSIAN", "INITIALIZATION", "LAB", "NETWORKS", "RATE", "REGRESSION",
    "SCALE", "SKIPS", "SPHERE",
]  # fmt: skip
