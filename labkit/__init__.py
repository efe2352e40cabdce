"""labkit: what does the theory predict for this network, and is it so?

    >>> import labkit
    >>> A = labkit.jacobian(model, x)                  # (n·K, p), never formed        # doctest: +SKIP
    >>> top = labkit.svd(A, k=50)                      # with true residuals           # doctest: +SKIP
    >>> labkit.split(top, y, rank=50).share_information                                # doctest: +SKIP

Names are loaded on first use, so that `import labkit` costs next to nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.data import Dataset as Dataset
    from labkit.data import gaussian_mixture as gaussian_mixture
    from labkit.data import load as load
    from labkit.data import one_hot as one_hot
    from labkit.headless.sweep import sweep as sweep
    from labkit.krylov import operator_from as operator_from
    from labkit.krylov import singular_values as singular_values
    from labkit.krylov import spectral_density as spectral_density
    from labkit.krylov import svd as svd
    from labkit.labs import load_lab as load_lab
    from labkit.live import Panel as Panel
    from labkit.live import watch as watch
    from labkit.measure import dense_jacobian as dense_jacobian
    from labkit.measure import dense_ntk as dense_ntk
    from labkit.measure import empirical_ntk as empirical_ntk
    from labkit.measure import jacobian as jacobian
    from labkit.measure import rows as rows
    from labkit.measure import split as split
    from labkit.models import mlp as mlp
    from labkit.models import one_hidden as one_hidden
    from labkit.models import resnet20 as resnet20
    from labkit.protocol.experiment import Experiment as Experiment
    from labkit.protocol.experiment import Frame as Frame
    from labkit.protocol.experiment import ahead as ahead
    from labkit.protocol.experiment import drain as drain
    from labkit.protocol.judging import judge as judge
    from labkit.protocol.judging import judge_all as judge_all
    from labkit.theory import analytic_ntk as analytic_ntk
    from labkit.training import Ensemble as Ensemble
    from labkit.training import train as train

# Read by OpenMP when torch is first imported. Where another program holds one of two cores, threads that spin
# while they wait make small matrix products up to thirteen times slower; threads that sleep cost a factor of
# two on quiet cores. Experiments avoid both: `labkit.protocol.experiment.experiment_mode`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_WHERE = {
    "protocol.judging": ("judge", "judge_all"),
    "data": ("Dataset", "gaussian_mixture", "load", "one_hot"),
    "protocol.experiment": ("Experiment", "Frame", "ahead", "drain"),
    "krylov": ("operator_from", "singular_values", "spectral_density", "svd"),
    "labs": ("load_lab",),
    "live": ("Panel", "watch"),
    "measure": ("dense_jacobian", "dense_ntk", "empirical_ntk", "jacobian", "rows", "split"),
    "models": ("mlp", "one_hidden", "resnet20"),
    "headless.sweep": ("sweep",),
    "theory": ("analytic_ntk",),
    "training": ("Ensemble", "train"),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  # the names above, written once

try:
    __version__ = version("labkit")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    value = getattr(import_module(f"labkit.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
