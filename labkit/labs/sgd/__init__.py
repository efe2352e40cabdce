"""Lab 3, SGD, flat minima, minimum norm (paper 3): one module an experiment, in the order of the story."""

from labkit.labs.sgd.bounds import BOUNDS
from labkit.labs.sgd.bridge import BRIDGE
from labkit.labs.sgd.filters import FILTERS
from labkit.labs.sgd.flatness import FLATNESS
from labkit.labs.sgd.interpolation import INTERPOLATION
from labkit.labs.sgd.langevin import LANGEVIN
from labkit.labs.sgd.margins import MARGINS
from labkit.labs.sgd.minimum_norm import MINIMUM_NORM
from labkit.labs.sgd.noise import NOISE
from labkit.labs.sgd.polynomial import POLYNOMIAL
from labkit.labs.sgd.puzzle import PUZZLE
from labkit.labs.sgd.robustness import ROBUSTNESS
from labkit.labs.sgd.selection import SELECTION
from labkit.labs.sgd.separator import SEPARATOR
from labkit.labs.sgd.shared import PAPER
from labkit.labs.sgd.span import SPAN
from labkit.labs.sgd.valley import VALLEY
from labkit.labs.sgd.wells import WELLS
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=3,
    name="sgd",
    title="SGD, flat minima, minimum norm",
    paper=PAPER,
    experiments=(
        PUZZLE, SELECTION, MINIMUM_NORM, SPAN, BRIDGE, FILTERS, WELLS, NOISE, FLATNESS, VALLEY, LANGEVIN,
        INTERPOLATION, MARGINS, SEPARATOR, ROBUSTNESS, POLYNOMIAL, BOUNDS,
    ),
    core=("S1", "S2", "S3", "S4", "S6", "S8", "S9", "S15", "S20", "S21"),
    notebook="03_sgd_and_flat_minima",
)  # fmt: skip

__all__ = [
    "BOUNDS", "BRIDGE", "FILTERS", "FLATNESS", "INTERPOLATION", "LAB", "LANGEVIN", "MARGINS", "MINIMUM_NORM",
    "NOISE", "POLYNOMIAL", "PUZZLE", "ROBUSTNESS", "SELECTION", "SEPARATOR", "SPAN", "VALLEY", "WELLS",
]  # fmt: skip
