"""The architectures of the papers, drawn from a seed."""

from labkit.models.activations import ACTIVATIONS, Activation, Bounds
from labkit.models.folding import fold_batch_norm
from labkit.models.init import INITS, initialize
from labkit.models.mlp import MLP, mlp
from labkit.models.onehidden import READOUTS, OneHidden, one_hidden
from labkit.models.rescaling import rescale_nodes
from labkit.models.resnet import ResNet, resnet20
from labkit.models.vgg import VGG, vgg

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "MLP",
    "READOUTS",
    "Activation",
    "Bounds",
    "OneHidden",
    "ResNet",
    "VGG",
    "fold_batch_norm",
    "initialize",
    "mlp",
    "one_hidden",
    "rescale_nodes",
    "resnet20",
    "vgg",
]
