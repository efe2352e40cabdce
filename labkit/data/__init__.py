"""Data: real images, files and data with a known law; subsets, label noise, normalisation, targets."""

from labkit.data.dataset import Dataset
from labkit.data.errors import DatasetUnavailable
from labkit.data.loading import NAMES, class_counts, load
from labkit.data.noise import KINDS, corrupt
from labkit.data.synthetic import (
    LowRankLinear,
    Mixture,
    gaussian_mixture,
    linear_teacher,
    low_rank_linear,
    sphere,
)
from labkit.data.targets import centred, one_hot, signed

__all__ = [
    "KINDS",
    "NAMES",
    "Dataset",
    "DatasetUnavailable",
    "LowRankLinear",
    "Mixture",
    "centred",
    "class_counts",
    "corrupt",
    "gaussian_mixture",
    "linear_teacher",
    "load",
    "low_rank_linear",
    "one_hot",
    "signed",
    "sphere",
]
