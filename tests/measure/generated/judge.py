"""What a measure did to a generated model: right, refused in one clear line, or a finding."""

from __future__ import annotations

import math
import random
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import labkit

from .models import DTYPES, Spec
from .routes import ROUTES, Case, made
from .twins import twin

PACKAGE = str(Path(labkit.__file__).parent)
# Shares of the norm; or so many times what rounding does to plain autograd. In bfloat16 one unit that
# switches at rounding is a good part of a small J: only errors of order one are told.
TOLERANCE = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.3}
TIMES_PLAIN = 10


@dataclass(frozen=True)
class Finding:
    """What went wrong on a route: "differs", "unclear", "refused", "accepted", "changed" or "warned"."""

    route: str
    what: str
    detail: str


def findings(spec: Spec, routes: list[str] | None = None) -> list[Finding] | None:
    """All that is wrong with the measures of this model; None where torch itself cannot run it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = made(spec)
            rounding = _rounding(case)
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    if not case.true.excuse and not (bool(case.true.J.isfinite().all()) and math.isfinite(rounding)):
        return None
    found = []
    for name, route in ROUTES.items():
        if route.takes(case) and (routes is None or name in routes):
            found += _judged(name, case, rounding)
    return found


def _judged(name: str, case: Case, rounding: float) -> list[Finding]:
    before, found = _state(case), []
    pairs: list[tuple[Any, Any]] = []
    try:
        with _setting(case.spec), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            pairs = list(ROUTES[name].check(case))
    except AssertionError as error:
        found.append(Finding(name, "differs", str(error)))
    except Exception as error:
        if not _clear(error):
            found.append(Finding(name, "unclear", f"{type(error).__name__}: {error}"[:300]))
        elif not case.spec.excuses and not case.true.excuse:
            found.append(Finding(name, "refused", str(error)[:300]))
    else:
        if case.true.excuse and pairs:
            found.append(Finding(name, "accepted", case.true.excuse))
        else:
            found += [Finding(name, "differs", gap) for gap in _gaps(pairs, case, rounding)]
    texts = {str(w.message)[:200] for w in heard} - case.own_warnings
    found += [Finding(name, "warned", text) for text in sorted(texts)]
    return found + [Finding(name, "changed", what) for what in _changes(before, _state(case))]


def _clear(error: Exception) -> bool:
    """One line of labkit's own."""
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    own = isinstance(error, ValueError | TypeError | NotImplementedError) and where.startswith(PACKAGE)
    return own and "\n" not in str(error).strip()


def _rounding(case: Case) -> float:
    """What the spec's type does to plain autograd: to J, to the outputs, to the losses' gradients."""
    if case.spec.dtype == "float64":
        return 0.0
    plain = twin(case.spec, dtype=DTYPES[case.spec.dtype])
    ours = Case(
        case.spec,
        case.model,
        case.x,
        case.y,
        replace(case.true, outputs=plain.outputs.double(), J=plain.J.double()),
    )
    both = (
        (ours.true.J, case.true.J),
        (ours.true.outputs, case.true.outputs),
        (ours.gradients, case.gradients),
    )
    return float(torch.stack([(a - b).norm() / b.norm().clamp_min(1e-300) for a, b in both]).max())


def _gaps(pairs: list[tuple[Any, Any]], case: Case, rounding: float) -> Iterator[str]:
    """Where what was found is not what is true."""
    dtype = "bfloat16" if "autocast" in case.spec.excuses else case.spec.dtype
    tolerance = max(TOLERANCE[dtype], TIMES_PLAIN * rounding)
    J = case.true.J
    row = float(J.norm()) / J.shape[0] ** 0.5
    for number, (found, expected) in enumerate(pairs):
        if found.shape != expected.shape:
            yield f"{number}: shape {tuple(found.shape)}, should be {tuple(expected.shape)}"
            continue
        found, expected = found.detach().double(), expected.double()
        gap, count = found - expected, max(1, expected.numel()) ** 0.5
        # Sums that cancel are as uncertain as their terms: a small part of a row's length is forgiven.
        size = max(float(expected.norm()) / count, row * (1e-6 if dtype == "float64" else 0.2))
        if not float(gap.norm()) / count <= tolerance * size:
            share = float(gap.norm()) / count / max(size, 1e-300)
            yield f"{number}: off by {share:.2g}, tolerance {tolerance:.1g}"


@contextmanager
def _setting(spec: Spec) -> Iterator[None]:
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        if spec.setting in ("no_grad", "inference_mode"):
            stack.enter_context(getattr(torch, spec.setting)())
        elif spec.setting == "autocast":
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        elif spec.setting == "float64 by default":
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, before)
        yield


def _state(case: Case) -> dict[str, Any]:
    """Everything of the caller's that a measure could touch."""
    kept: dict[str, Any] = {"x": _copied(case.x), "y": _copied(case.y), "x.grad": _copied(case.x.grad)}
    for name, p in case.model.named_parameters():
        kept[name] = (id(p), p.requires_grad, _copied(p), _copied(p.grad))
    kept.update({name: _copied(value) for name, value in case.model.named_buffers()})
    for name, module in case.model.named_modules():
        hooks = [len(value) for key, value in vars(module).items() if key.endswith("_hooks")]
        kept[f"module {name}"] = (module.training, hooks, sorted(vars(module)))
    kept["torch's generator"] = torch.get_rng_state()
    kept["numpy's generator"] = np.random.get_state()[1].tolist()  # noqa: NPY002
    kept["python's generator"] = random.getstate()
    kept["modes"] = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    return kept


def _copied(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7)) if a.is_floating_point() else torch.equal(a, b)
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(p, q) for p, q in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
