"""Writes docs/norms-of-torchvision.md: which norms torchvision's classification models have, and why not.

    python docs/make_norms_table.py

Random weights, evaluation mode, one small image, nothing downloaded; some minutes on one core.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from labkit.measure import path_norm, weight_layers
from labkit.models import fold_batch_norm

# name -> the side of the image
MODELS = {
    "alexnet": 64, "vgg11": 32, "vgg11_bn": 32, "resnet18": 32, "resnet50": 32, "wide_resnet50_2": 32,
    "resnext50_32x4d": 32, "densenet121": 32, "squeezenet1_1": 32, "googlenet": 32, "inception_v3": 75,
    "mobilenet_v2": 32, "mobilenet_v3_small": 32, "shufflenet_v2_x0_5": 32, "mnasnet0_5": 32,
    "efficientnet_b0": 32, "efficientnet_v2_s": 32, "regnet_x_400mf": 32, "regnet_y_400mf": 32,
    "convnext_tiny": 32, "vit_b_16": 224, "swin_t": 32, "swin_v2_t": 32, "maxvit_t": 224,
}  # fmt: skip
HEAD = """# Which norms torchvision's models have

Written by `python docs/make_norms_table.py`: random weights, evaluation mode, one small image each.

*Folded*: what `fold_batch_norm` did with the batch norms that evaluation runs: how many it counted into
the layer before them, and how many became layers of their own, since a sum, a concatenation or an activation
stands before them. *Gap*: the largest change of an output by folding, in float64, relative to the largest
output. *Layers*: how many `layer_norms` measures, and the share of the parameters that they hold; the rest
are biases, gains of normalisations and of layer scale, embeddings of positions and class tokens, and heads
that evaluation never runs. *Path norm*: whether `path_norm` has a value; if not, the first call that is not
positively homogeneous, f(a h) = a f(h) for a > 0, and where it stands. Every model has the norms of its
layers.

| model | image | folded | gap | layers | share | path norm |
| --- | --- | --- | --- | --- | --- | --- |
"""


def built(name: str, side: int) -> tuple[nn.Module, Tensor]:
    """A model with random weights and lived-in batch norms, in float64, and two images."""
    torch.manual_seed(0)
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **more).double().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.running_mean, std=0.1)
    return model, torch.randn(2, 3, side, side, dtype=torch.float64)


def row(name: str, side: int) -> str:
    model, x = built(name, side)
    folded = fold_batch_norm(model, x)
    before, after = dict(model.named_modules()), dict(folded.named_modules())
    norms = [after[path] for path, part in before.items() if isinstance(part, nn.BatchNorm2d)]
    counted, own = (sum(isinstance(part, kind) for part in norms) for kind in (nn.Identity, nn.Conv2d))
    with torch.no_grad():
        outputs = model(x)
        gap = float((folded(x) - outputs).abs().max() / outputs.abs().max())
    layers = weight_layers(folded, x)
    share = sum(layer.weight.numel() for layer in layers) / sum(p.numel() for p in folded.parameters())
    into = f"{counted} + {own}" if norms else "–"
    return (
        f"| {name} | {side} | {into} | {f'{gap:.0e}' if norms else '–'} | {len(layers)} | {share:.3f} | "
        f"{refusal(lambda: path_norm(folded, x, 2)) or 'yes'} |"
    )


def refusal(call: Callable[[], object]) -> str:
    """The error's message without its frame; nothing where the call succeeds."""
    try:
        call()
    except ValueError as error:
        return str(error).removeprefix("model: ").removesuffix("; so it has no path norm")
    return ""


def main() -> None:
    warnings.simplefilter("ignore")
    rows = []
    for name, side in MODELS.items():
        rows.append(row(name, side))
        sys.stderr.write(rows[-1] + "\n")
    Path(__file__).with_name("norms-of-torchvision.md").write_text(HEAD + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()
