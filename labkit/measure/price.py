"""What an operator will cost, found from one sample before anything is paid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from labkit.measure.functional import Network

__all__ = ["MiB", "Price", "sample_flops", "saved_numbers"]

MiB = 2**20


@dataclass(frozen=True)
class Price:
    """The price of a Jacobian, before it runs.

    Attributes:
        route: "dense", "stored" or "products".
        bytes: held between products, once everything is built (predicted).
        flops: of one product with one vector, either side, by the route's matrix-free form.
        products: what building costs at first use, in single products (0: nothing is built).
        stored_bytes: what J itself takes, n*K*p numbers.
        chunk: samples worked on at a time.
    """

    route: str
    bytes: int
    flops: int
    products: int
    stored_bytes: int
    chunk: int

    def __str__(self) -> str:
        built = f"; building costs about {self.products} products" if self.products else ""
        return (
            f"route {self.route}: {self.bytes / MiB:.0f} MiB held, {self.flops / 1e9:.3g} GFLOP a "
            f"product{built}; J itself would take {self.stored_bytes / MiB:.0f} MiB"
        )


def saved_numbers(network: Network, x: Tensor) -> int:
    """Numbers a sample that a kept linearisation holds: twice what a forward pass saves for backward."""
    seen: dict[int, int] = {}
    own = {value.data_ptr() for value in network.params.values()}

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            seen[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.enable_grad(), saved_tensors_hooks(note, lambda t: t):
        network(network.leaves(), x[:1])
    return 2 * sum(seen.values()) // network.dtype.itemsize


def sample_flops(network: Network, x: Tensor) -> int:
    """Flops of one forward pass of one sample (matrix products and convolutions)."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(network.params, x[:1])
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the counter cannot watch a forward that differentiates
        return 2 * network.p
    return int(counter.get_total_flops())
