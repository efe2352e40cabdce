"""The table of layers and blocks: what each takes, what it gives, how it is built.

A sample has a form and sizes: vector (d,), sequence (T, d), signal (C, L), image (C, H, W), tokens (T,).
Widths and channels are even, so that groups, heads and gated halves always divide them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from . import blocks as b
from . import on_shapes, on_vectors
from .blocks import Block
from .variants import Size, Variant


@dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
        takes, gives: forms of a sample; no `gives`: the same form.
        build: (sizes of a sample, variant) -> module.
        least: of the last size, that the layer can take.
        excuse: why a measure may refuse a model with it; empty: it must not.
    """

    takes: str
    build: Callable[[Size, Variant], nn.Module]
    gives: str = ""
    least: int = 1
    excuse: str = ""


NO_FORWARD = "no forward derivative, or no graph of the backward"
BRANCH = "the graph depends on the data"
COUPLED = "samples look at each other, or at chance"
WRITES = "forward writes into its parameters"
NOT_DERIVATIVE = "backward is not the derivative"

KINDS: dict[str, Kind] = {
    "dense": Kind("vector", lambda size, v: nn.Linear(size[0], v.pick(4, 6, 2), bias=v.pick(True, False))),
    "activation": Kind("any", on_vectors.activation),
    "dense by hand": Kind("vector", on_vectors.by_hand),
    "vector norm": Kind("vector", on_vectors.vector_norm),
    "gated": Kind("vector", on_vectors.gated),
    "ties": Kind("vector", on_vectors.ties),
    "parametrised": Kind("vector", on_vectors.parametrised),
    "odd parameter": Kind("vector", on_vectors.odd_parameter),
    "clipped": Kind("vector", lambda size, v: Block(b.clipped, layer=nn.Linear(size[0], 4)), excuse=WRITES),
    "shaping": Kind("vector", on_vectors.shaping),
    "context": Kind("vector", on_vectors.contexts),
    "in place": Kind("any", on_vectors.in_place),
    "branches": Kind("vector", on_vectors.branches, excuse=BRANCH),
    "custom": Kind("any", lambda size, v: Block(b.applying(v.pick(*b.CUSTOM))), excuse=NO_FORWARD),
    "straight through": Kind(
        "any",
        lambda size, v: Block(v.pick(b.applying(b.ClippedBackward), b.reversed_gradient)),
        excuse=NOT_DERIVATIVE,
    ),
    "reentrant checkpoint": Kind(
        "vector", lambda size, v: Block(b.recomputed(True), inner=nn.Linear(size[0], 4)), excuse=NO_FORWARD
    ),
    "mixed precision": Kind(
        "vector", lambda size, v: Block(b.mixed_precision, layer=nn.Linear(size[0], 4)), excuse="autocast"
    ),
    "sequence layer": Kind("sequence", on_shapes.sequence),
    "attention": Kind("sequence", on_shapes.attention),
    "recurrent": Kind("sequence", on_shapes.recurrent),
    "to vector": Kind("sequence", on_shapes.to_vector, "vector"),
    "signal layer": Kind("signal", on_shapes.signal, least=3),
    "signal norm": Kind("signal", on_shapes.signal_norm, least=2),
    "signal pool": Kind("signal", on_shapes.signal_pool, least=3),
    "to sequence": Kind("signal", lambda size, v: Block(lambda s, x: x.mT), "sequence"),
    "image layer": Kind("image", on_shapes.image, least=3),
    "image layers": Kind("image", on_shapes.image_more, least=3),
    "image norm": Kind("image", on_shapes.image_norm, least=2),
    "image pool": Kind("image", on_shapes.image_pool, least=3),
    "to signal": Kind("image", lambda size, v: nn.Flatten(2), "signal"),
    "embedding": Kind("tokens", on_shapes.embedding, "sequence"),
    "bag": Kind("tokens", on_shapes.bag, "vector"),
    "odd embedding": Kind("tokens", on_shapes.odd_embedding, "sequence", excuse=NOT_DERIVATIVE),
    "coupled": Kind("vector", on_vectors.coupled, excuse=COUPLED),
}
