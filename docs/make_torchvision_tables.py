"""Writes docs/torchvision.md: what the measures do with torchvision's classification models.

    python docs/make_torchvision_tables.py

Random weights, evaluation mode, small images, nothing downloaded; about three quarters of an hour on one
core, and 10 GB for the largest.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from labkit.measure import empirical_ntk, jacobian, ntk_route, path_norm, weight_layers
from labkit.models import fold_batch_norm

# name -> the side of the image
MODELS = {
    "alexnet": 64, "vgg11": 32, "vgg11_bn": 32, "resnet18": 32, "resnet50": 32, "wide_resnet50_2": 32,
    "resnext50_32x4d": 32, "densenet121": 32, "squeezenet1_1": 32, "googlenet": 32, "inception_v3": 75,
    "mobilenet_v2": 32, "mobilenet_v3_small": 32, "shufflenet_v2_x0_5": 32, "mnasnet0_5": 32,
    "efficientnet_b0": 32, "efficientnet_v2_s": 32, "regnet_x_400mf": 32, "regnet_y_400mf": 32,
    "convnext_tiny": 32, "vit_b_16": 224, "swin_t": 32, "swin_v2_t": 32, "maxvit_t": 224,
}  # fmt: skip
HEAD = """# What the measures do with torchvision's models

Written by `python docs/make_torchvision_tables.py`: random weights, evaluation mode, small images.

## Jacobian and kernel

Two samples and two outputs in float64, against one backward pass a row: the *gaps* are norms of differences,
relative. *u, v*: |⟨u, J v⟩ - ⟨Jᵀu, v⟩| for random u and v, relative to |u| |J v|. *Rows*: of J. *Column*: the
longest, from J v of a unit vector. *Kernel*: `empirical_ntk`. *Route*: that of the kernel, by `ntk_route`.
*Time* (of one processor) and *memory*: of `empirical_ntk` on four samples and four outputs in float32, all
checks included, over those of J formed by one backward pass a row and J Jᵀ; memory is what the process grew
by at most. *As built*: whether the measures refuse the model in training mode, as its constructor leaves it.

| model | image | parameters | route | u, v | rows | column | kernel | time | memory | as built |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
NORMS = """
## Norms and folding

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


def built(name: str, n: int, K: int | None = None) -> tuple[nn.Module, Tensor]:
    """A model with random weights and lived-in batch norms, in float64, and n images."""
    torch.manual_seed(0)
    more: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    more |= {} if K is None else {"num_classes": K}
    model = torchvision.models.get_model(name, weights=None, **more).double().eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.running_mean, std=0.1)
    return model, torch.randn(n, 3, MODELS[name], MODELS[name], dtype=torch.float64)


def explicit(model: nn.Module, x: Tensor) -> Tensor:
    """J by one backward pass a row."""
    leaves = list(model.parameters())
    rows = []
    for value in model(x).flatten():
        found = torch.autograd.grad(
            value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


def gaps(name: str) -> list[str]:
    """Size and route of the model, and how far the measures are from plain autograd."""
    model, x = built(name, 2, 2)
    D, J = explicit(model, x), jacobian(model, x, route="products")
    v, u = torch.randn(J.shape[1], dtype=torch.float64), torch.randn(J.shape[0], dtype=torch.float64)
    Jv = J.matmat(v)
    adjoint = float(abs(u @ Jv - J.rmatmat(u) @ v) / (u.norm() * Jv.norm()))
    column = int(D.square().sum(0).argmax())
    unit = torch.zeros_like(v)
    unit[column] = 1
    kernel = empirical_ntk(model, x).reshape(len(D), -1)
    found = [
        adjoint,
        off(J.dense(), D),
        off(J.matmat(unit), D[:, column]),
        off(kernel, D @ D.T),
    ]
    return [f"{J.shape[1]:,}", ntk_route(model, x), *(f"{gap:.0e}" for gap in found)]


def off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def cost(name: str, plain: bool) -> tuple[float, int]:
    """Processor seconds and bytes of a kernel in float32; alone in its process, whose growth is told."""
    torch.set_num_threads(1)
    model, x = built(name, 4, 4)
    model, x = model.float(), x.float()
    with torch.no_grad():
        model(x)
    before = peak(afresh=True)
    begin = time.process_time()
    if plain:
        J = explicit(model, x)
        J @ J.T
    else:
        empirical_ntk(model, x)
    seconds = time.process_time() - begin
    return seconds, peak() - before


def peak(*, afresh: bool = False) -> int:
    """The most kilobytes that this process has held (Linux), counted from now on if `afresh`."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1])


def alone(call: Callable[..., Any], *args: Any) -> Any:
    """In a process of its own, whose memory and warnings are nobody else's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(call, *args).result()


def as_built(name: str) -> str:
    model, x = built(name, 2, 2)
    return "refused" if refusal(lambda: ntk_route(model.train(), x)) else "nothing to refuse"


def routes_row(name: str) -> str:
    ours, plain = alone(cost, name, False), alone(cost, name, True)
    shares = [f"{mine / theirs:.2f}" for mine, theirs in zip(ours, plain, strict=True)]
    return " | ".join([f"| {name}", str(MODELS[name]), *alone(gaps, name), *shares, as_built(name)]) + " |"


def norms_row(name: str) -> str:
    model, x = built(name, 2)
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
        f"| {name} | {MODELS[name]} | {into} | {f'{gap:.0e}' if norms else '–'} | {len(layers)} | "
        f"{share:.3f} | {refusal(lambda: path_norm(folded, x, 2)) or 'yes'} |"
    )


def refusal(call: Callable[[], object]) -> str:
    """The error's message without its frame; nothing where the call succeeds."""
    try:
        call()
    except ValueError as error:
        return str(error).removeprefix("model: ").removesuffix("; so it has no path norm")
    return ""


def table(row: Callable[[str], str]) -> str:
    rows = []
    for name in MODELS:
        rows.append(row(name))
        sys.stderr.write(rows[-1] + "\n")
    return "\n".join(rows) + "\n"


def main() -> None:
    warnings.simplefilter("ignore")
    page = HEAD + table(routes_row) + NORMS + table(norms_row)
    Path(__file__).with_name("torchvision.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
