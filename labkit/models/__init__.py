"""The architectures of the papers, drawn from a seed."""

from labkit.models.activations import ACTIVATIONS, Activation, Bounds
from labkit.models.alexnet import AlexNet, alexnet
from labkit.models.allconv import AllConv, allconv
from labkit.models.augmented import Augmented, augmented
from labkit.models.folding import fold_batch_norm
from labkit.models.init import INITS, initialize
from labkit.models.mlp import MLP, ResidualMLP, mlp
from labkit.models.onehidden import READOUTS, OneHidden, one_hidden
from labkit.models.polynomial import PolynomialReLU, polynomial_relu
from labkit.models.rescaling import rescale_nodes
from labkit.models.resnet import ResNet, resnet20
from labkit.models.vgg import VGG, vgg
from labkit.models.wideresnet import WideResNet, wide_resnet

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "MLP",
    "READOUTS",
    "Activation",
    "AlexNet",
    "AllConv",
    "Augmented",
    "Bounds",
    "OneHidden",
    "PolynomialReLU",
    "ResNet",
    "ResidualMLP",
    "VGG",
    "WideResNet",
    "alexnet",
    "allconv",
    "augmented",
    "fold_batch_norm",
    "initialize",
    "mlp",
    "one_hidden",
    "polynomial_relu",
    "rescale_nodes",
    "resnet20",
    "vgg",
    "wide_resnet",
]
