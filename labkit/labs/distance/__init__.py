"""Lab 1, distance from initialization (paper 1): one module an experiment, in the order of the story."""

from labkit.labs.distance.bounds import BOUNDS
from labkit.labs.distance.complexity import COMPLEXITY
from labkit.labs.distance.concentration import CONCENTRATION
from labkit.labs.distance.initialization import INITIALIZATION
from labkit.labs.distance.noise import NOISE
from labkit.labs.distance.scaling import SCALING
from labkit.labs.distance.scaling_panels import over_width, which_number
from labkit.labs.distance.shared import PAPER, distance
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=1,
    name="distance",
    title="Distance from initialization",
    paper=PAPER,
    experiments=(INITIALIZATION, SCALING, NOISE, BOUNDS, COMPLEXITY, CONCENTRATION),
    core=("D1", "D2", "D6", "D7", "D10", "D11", "D13", "D14", "D17", "D18", "D20", "D21"),
    notebook="01_distance_from_initialization",
)

__all__ = [
    "BOUNDS", "COMPLEXITY", "CONCENTRATION", "INITIALIZATION", "LAB", "NOISE", "SCALING", "distance",
    "over_width", "which_number",
]  # fmt: skip
