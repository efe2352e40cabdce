"""Lab 4, the low-rank Jacobian (paper 4): one module an experiment, in the order of the story."""

from labkit.labs.jacobian.alignment import ALIGNMENT
from labkit.labs.jacobian.corruption import CORRUPTION
from labkit.labs.jacobian.cutoff import CUTOFF
from labkit.labs.jacobian.kernel import KERNEL
from labkit.labs.jacobian.linear import LINEAR
from labkit.labs.jacobian.linearization import LINEARIZATION
from labkit.labs.jacobian.meta_theorem import META
from labkit.labs.jacobian.mixture import MIXTURE
from labkit.labs.jacobian.onestep import ONESTEP
from labkit.labs.jacobian.published import comparison, published
from labkit.labs.jacobian.residuals import RESIDUALS
from labkit.labs.jacobian.shared import PAPER, project
from labkit.labs.jacobian.spectrum import SPECTRUM
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=4,
    name="jacobian",
    title="The low-rank Jacobian",
    paper=PAPER,
    experiments=(
        KERNEL, MIXTURE, RESIDUALS, LINEARIZATION, META, CORRUPTION,
        CUTOFF, ALIGNMENT, LINEAR, SPECTRUM, ONESTEP,
    ),
    core=("J1", "J2", "J3", "J4", "J5", "J7", "J8", "J11", "J12", "J18", "J19"),
    notebook="04_low_rank_jacobian",
)  # fmt: skip

__all__ = [
    "ALIGNMENT", "CORRUPTION", "CUTOFF", "KERNEL", "LAB", "LINEAR", "LINEARIZATION", "META", "MIXTURE",
    "ONESTEP", "RESIDUALS", "SPECTRUM", "comparison", "project",
    "published",
]  # fmt: skip
