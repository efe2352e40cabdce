"""What a model must promise before a measure of it means anything, checked at every public door.

Measures work a few samples at a time, so the outputs of one sample may depend on nothing else: not on its
neighbours (batch statistics, a recurrence over the samples), not on chance (dropout, stochastic depth). And
everything must be finite, in one type with enough digits. Each refusal names the culprit, says what would go
wrong and gives the ways out as calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedParameter

from labkit.measure.chance import Chance
from labkit.measure.samplewise import samplewise
from labkit.measure.witness import numbers

__all__ = [
    "finite", "refuse_active_layers", "refuse_broken_promise", "refuse_coupled_slopes", "refuse_coupling",
    "refuse_infinite_outputs", "refuse_infinite_slopes", "refuse_infinite_targets", "refuse_not_finite",
    "refuse_state", "refuse_unfit_types",
]  # fmt: skip


# Of the largest output: above what a reordered sum does (about 1e-6 and 1e-14), below a real dependence.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}


def refuse_active_layers(model: nn.Module, caller: str) -> None:
    """Refuse batch statistics and dropout that are switched on.

    Raises:
        ValueError: naming the layers, the consequence and the remedies.
    """
    training, stateless, dropout = [], [], []
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            stateless.append(name or "the model itself")
        elif (
            layer.training
            and isinstance(layer, _BatchNorm | _InstanceNorm)
            and layer.running_mean is not None
        ):
            training.append(name or "the model itself")
        elif layer.training and _drops(layer):
            dropout.append(name or "the model itself")
    if stateless:
        raise ValueError(
            f"{caller}: {_listed(stateless)} batch normalisation without running statistics "
            "(track_running_stats=False): one sample's outputs depend on its neighbours even after "
            "model.eval(), so the matrix would change with the chunk size. Build the layer with "
            "track_running_stats=True, train or calibrate it and call model.eval(); or use "
            "torch.nn.GroupNorm, which looks at one sample at a time"
        )
    if training:
        also = f"; {_listed(dropout)} active dropout" if dropout else ""
        raise ValueError(
            f"{caller}: {_listed(training)} BatchNorm (or running InstanceNorm) in training mode{also}. One "
            "sample's outputs then depend on its neighbours, so the matrix would change with the chunk "
            "size, and each pass would move the running statistics. Call model.eval(); or build the model "
            "without batch norm, for example labkit.resnet20(batch_norm=False)"
        )
    if dropout:
        raise ValueError(
            f"{caller}: {_listed(dropout)} active dropout. Each product would then belong to another random "
            "network, so the operator would not be a matrix. Call model.eval(); or set the layer's "
            "probability to 0, for example layer.p = 0.0"
        )


def _drops(layer: nn.Module) -> bool:
    if isinstance(layer, _DropoutNd):
        return layer.p > 0
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return layer.dropout > 0
    return False


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def refuse_unfit_types(params: Mapping[str, Tensor], x: Tensor, caller: str) -> None:
    """One floating-point type, float32 or float64, on one device, for parameters and floating-point inputs.

    Raises:
        ValueError: naming what does not fit, and the conversion.
    """
    if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[0] == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{caller}: x is {got}, needs a tensor (n, ...) with at least one sample, samples first"
        )
    if x.layout != torch.strided:
        raise ValueError(f"{caller}: x is stored as {x.layout}; pass x.to_dense()")
    dtype, device = _one_type(params, caller)
    if x.is_floating_point() and x.dtype != dtype:
        raise ValueError(
            f"{caller}: x is {x.dtype}, the parameters are {dtype}; pass x.to({dtype}) or convert the model"
        )
    if x.device != device:
        raise ValueError(
            f"{caller}: x is on {x.device}, the parameters are on {device}; pass x.to('{device}')"
        )


def _one_type(params: Mapping[str, Tensor], caller: str) -> tuple[torch.dtype, torch.device]:
    """The one type and device of all parameters, with digits and numbers to compute with.

    Raises:
        ValueError: naming what does not fit, and the conversion.
    """
    for name, value in params.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{caller}: params[{name!r}] is a {type(value).__name__}, needs a tensor; pass one flat "
                "dictionary"
            )
    unmade = [name for name, value in params.items() if isinstance(value, UninitializedParameter)]
    if unmade:
        raise ValueError(f"{caller}: {_listed(unmade)} not initialised; call model(x) once before")
    kinds = {(value.dtype, value.device) for value in params.values()}
    if len(kinds) > 1 or not next(iter(kinds))[0].is_floating_point:
        raise ValueError(
            f"{caller}: the parameters are of {sorted(str(k) for k in kinds)}, need one floating-point type "
            "on one device; call model.double() or model.float(), and model.to(device)"
        )
    dtype, device = next(iter(kinds))
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{caller}: the parameters are {dtype}, which has two or three digits: too few for products, "
            "spectra and differences. Pass copy.deepcopy(model).float() and x.float(), with the same weights"
        )
    if device.type == "meta":
        raise ValueError(
            f"{caller}: the parameters are on 'meta', where tensors have no numbers; call "
            "model.to_empty(device='cpu') and load or draw the weights"
        )
    if torch.is_autocast_enabled(device.type):
        raise ValueError(
            f"{caller}: autocast is on, so products are rounded to {torch.get_autocast_dtype(device.type)}. "
            f"Leave the block, or open one: with torch.autocast({device.type!r}, enabled=False): ..."
        )
    return dtype, device


def refuse_not_finite(params: Mapping[str, Tensor], x: Tensor | None, caller: str) -> None:
    """Refuse parameters, and inputs where they are given, that are infinite or not a number.

    Raises:
        ValueError: naming them, and their share of such entries.
    """
    if finite([*params.values(), *([] if x is None else [x])]):
        return
    bad = {name: v.detach() for name, v in params.items() if not finite([v])}
    if bad:
        name, value = next(iter(bad.items()))
        others = f"; so are {len(bad) - 1} more parameters" if len(bad) > 1 else ""
        raise ValueError(
            f"{caller}: parameter {name!r} is not finite in {_share(value)}{others}. The training has "
            "diverged, or the weights were read wrongly; go back to finite ones"
        )
    if x is not None:
        raise ValueError(f"{caller}: x is not finite in {_share(x)}; leave those samples out")


def refuse_infinite_targets(y: Tensor, caller: str) -> None:
    """Refuse targets that are infinite or not a number.

    Raises:
        ValueError: with their share.
    """
    if y.is_floating_point() and not finite([y]):
        raise ValueError(f"{caller}: y is not finite in {_share(y)}; leave those samples out")


def refuse_infinite_outputs(y: Tensor, caller: str) -> None:
    """Refuse outputs that are infinite or not a number although parameters and inputs are not.

    Raises:
        ValueError: with their share.
    """
    if not finite([y]):
        raise ValueError(
            f"{caller}: the outputs are not finite in {_share(y)}, though parameters and x are: something in "
            "the model overflows or divides by zero. Scale x or the weights, or compute in float64"
        )


def refuse_infinite_slopes(gradient: Mapping[str, Tensor], caller: str) -> None:
    """Refuse derivatives that are infinite or not a number although the outputs are finite.

    Raises:
        ValueError: naming a parameter, with the share of such entries.
    """
    if finite(gradient.values()):
        return
    name, value = next((name, value) for name, value in gradient.items() if not finite([value]))
    raise ValueError(
        f"{caller}: the derivative by parameter {name!r} is not finite in {_share(value)}, though the "
        "outputs are: look for a root, norm or logarithm at 0, also where torch.where hides it"
    )


def finite(values: Iterable[Tensor]) -> bool:
    """Whether all numbers of these are, for one wait a device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for value in values:
        by_device.setdefault(value.device, []).append(value.detach())

    def all_of(seen: list[Tensor]) -> bool:
        # A sum costs a fifth of looking at each entry; it may overflow where none of them is infinite.
        sums = torch.stack([value.sum().isfinite() for value in seen])
        return bool(sums.all()) or bool(torch.stack([value.isfinite().all() for value in seen]).all())

    return all(all_of(seen) for seen in by_device.values())


def _share(value: Tensor) -> str:
    count = int((~value.isfinite()).sum())
    return f"{count} of {value.numel()} entries ({100 * count / value.numel():.3g} %)"


def refuse_state(first: Tensor, again: Tensor, written: Sequence[str], caller: str) -> None:
    """Refuse a model whose outputs follow a state that forward keeps, such as spectral norm in training mode.

    Raises:
        ValueError: naming what forward writes into.
    """
    largest, gap = numbers([first.abs().max(), (first - again).abs().max()])
    if gap > 100 * torch.finfo(first.dtype).eps * largest:
        raise ValueError(
            f"{caller}: the model is another function at each evaluation: forward writes into "
            f"{_listed(written)}, and a second evaluation of the same samples differs by {gap:.2g}. Call "
            "model.eval(), or keep that state fixed"
        )


def refuse_broken_promise(
    outputs: Callable[[Tensor], Tensor], x: Tensor, caller: str, model: object = None
) -> Tensor:
    """Refuse a model that is random, or whose samples look at each other, for reasons no layer's name tells.

    Looks at the first, the second and the last sample: together, again, each alone; and whether one's outputs
    have a derivative by another's inputs. `model` is only looked at, for better words.

    Returns:
        The outputs of the first sample alone, (1, ...).

    Raises:
        ValueError: saying which promise is broken and how to mend it.
    """
    probes = x[sorted({0, min(1, len(x) - 1), len(x) - 1})]
    with Chance() as chance:
        together = outputs(probes).detach()
    again, reaching = _reaching(outputs, probes)
    alone = [outputs(probes[i : i + 1]).detach() for i in range(len(probes))]
    refuse_infinite_outputs(together, caller)
    if chance.reached(together):
        raise ValueError(
            f"{caller}: the model is not deterministic: its outputs depend on random numbers "
            f"({', '.join(dict.fromkeys(chance.drawn))}), so it has no Jacobian. Call model.eval(), which "
            "switches off stochastic depth and dropout (F.dropout(h, training=self.training)); leave out "
            "noise that forward draws in that mode, too"
        )
    gap, largest, *gaps = numbers(
        [
            (together - again).abs().max(),
            together.abs().max(),
            *((together[i] - one[0]).abs().max() for i, one in enumerate(alone)),
        ]
    )
    tolerance = _TOLERANCE[together.dtype] * largest
    if gap > tolerance:
        raise ValueError(
            f"{caller}: the model is not deterministic: two evaluations of the same samples differ by "
            f"{gap:.2g} (largest output {largest:.2g}), so it has no Jacobian. Look for random numbers from "
            "outside torch, or a state that forward keeps"
        )
    first = next((i for i, gap in enumerate(gaps) if gap > tolerance), reaching)
    if first is not None:
        number = [0, 1, len(x) - 1][first]
        raise ValueError(_coupled(caller, number, gaps[first], largest, model))
    return alone[0]


def refuse_coupled_slopes(names: Collection[str], caller: str) -> None:
    """Refuse parameters whose derivatives, a sample at a time, are not those of the samples together.

    Raises:
        ValueError: if there are any.
    """
    if names:
        raise ValueError(
            f"{caller}: the derivative by parameter {min(names)!r} of one sample changes when it is taken "
            "beside others, though its outputs do not. Look for a backward pass that scales by the batch (an "
            "embedding with scale_grad_by_freq=True does) and switch that off"
        )


def refuse_coupling(
    outputs: Callable[[Tensor], Tensor],
    x: Tensor,
    caller: str,
    model: object = None,
    chunk: int | None = None,
) -> list[Tensor]:
    """The same of all samples of x, by values: each chunk as a whole, and every fourth sample.

    What three samples promise need not hold of the fourth. Costs two forward passes.

    Returns:
        The outputs of each chunk.

    Raises:
        ValueError: if a sample's outputs follow who stands beside it, or outputs are not finite.
    """
    chunk, given = chunk or len(x), []
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk]
        together = outputs(part).detach()
        places = torch.arange(len(part), device=x.device)
        some = [places[first::4] for first in range(min(4, len(part)))] if len(part) > 1 else []
        gaps = [(together[s] - outputs(part[s]).detach()).abs().flatten(1).amax(1) for s in some]
        whole = together.isfinite().all().to(together.dtype)
        clean, largest, *most = numbers([whole, together.abs().max(), *(gap.max() for gap in gaps)])
        if not clean:
            refuse_infinite_outputs(together, caller)
        for s, gap, found in zip(some, gaps, most, strict=True):
            if found > _TOLERANCE[together.dtype] * largest:
                raise ValueError(_coupled(caller, start + int(s[gap.argmax()]), found, largest, model))
        given.append(together)
    return given


def _reaching(outputs: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, int | None]:
    """Outputs, and a sample of which they have a derivative by the inputs of another: exact where values
    forgive.
    """
    if not x.is_floating_point() or len(x) == 1:
        return outputs(x).detach(), None
    leaf = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            given = outputs(leaf)
    except RuntimeError:  # inputs that require grad are too much for it
        return outputs(x).detach(), None
    if given.requires_grad and samplewise(given, leaf):
        return given.detach(), None
    try:
        with torch.enable_grad():
            y = given.reshape(len(x), -1)
            weights = torch.cos(torch.arange(y.shape[1], dtype=y.dtype, device=y.device))
            reached = []
            for i in range(len(x)):
                (g,) = torch.autograd.grad(y[i] @ weights, leaf, retain_graph=True, allow_unused=True)
                others = leaf[:0] if g is None else torch.cat([g[:i], g[i + 1 :]])
                # No number: a slope without bound times nothing, which is no dependence.
                reached.append(others.nan_to_num(0.0).any())
            if bool(torch.stack(reached).any()):
                return given.detach(), torch.stack(reached).tolist().index(True)
    except RuntimeError:  # no derivative by the inputs
        pass
    return given.detach(), None


def _coupled(caller: str, number: int, gap: float, scale: float, model: object) -> str:
    layers = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    time_first = [
        name
        for name, layer in layers.items()
        if isinstance(layer, nn.RNNBase | nn.MultiheadAttention) and not layer.batch_first
    ]
    likely = (
        f"{_listed(time_first)} built with batch_first=False and may run over the samples: build with "
        "batch_first=True"
        if time_first
        else "Look for statistics, a recurrence, a mask or a scan over the first axis; keep statistics fixed "
        "(model.eval()) or take them per sample"
    )
    return (
        f"{caller}: the outputs of sample {number} change by {gap:.2g} (largest output {scale:.2g}) when it "
        "is evaluated without its neighbours, or follow their inputs. The matrix would change with the chunk "
        f"size. {likely}"
    )
