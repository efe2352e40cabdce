"""Training: one loop for one network or many, as a generator of frames."""

from labkit.training.dynamics import descend
from labkit.training.ensemble import Ensemble
from labkit.training.loop import OPTIMIZERS, train
from labkit.training.losses import LOSSES
from labkit.training.schedules import Schedule
from labkit.training.search import LearningRateSearch
from labkit.training.stability import largest_stable_lr
from labkit.training.stopping import LossBelow, MarginAtLeast, StopRule, margins

__all__ = [
    "LOSSES",
    "OPTIMIZERS",
    "Ensemble",
    "LearningRateSearch",
    "LossBelow",
    "MarginAtLeast",
    "Schedule",
    "StopRule",
    "descend",
    "largest_stable_lr",
    "margins",
    "train",
]
