"""The architectures of the papers, drawn from a seed."""

from labkit.models.activations import ACTIVATIONS, Activation, Bounds
from labkit.models.init import INITS, initialize
from labkit.models.mlp import MLP, mlp
from labkit.models.onehidden import READOUTS, OneHidden, one_hidden
from labkit.models.resnet import ResNet, resnet20

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "MLP",
    "READOUTS",
    "Activation",
    "Bounds",
    "OneHidden",
    "ResNet",
    "initialize",
    "mlp",
    "one_hidden",
    "resnet20",
]
