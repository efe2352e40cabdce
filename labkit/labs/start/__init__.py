"""Lab 0, start here: one network seen through the lenses of all five papers at once."""

from labkit.labs.start.lenses import LENSES
from labkit.protocol.experiment import Lab

LAB = Lab(
    number=0,
    name="start",
    title="Start here: one network, five lenses",
    paper="the five papers of labs 1 to 5, one claim each",
    experiments=(LENSES,),
    core=("L1", "L2", "L3", "L4", "L5"),
    notebook="00_start_here",
)

__all__ = ["LAB", "LENSES"]
