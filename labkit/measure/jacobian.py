"""The Jacobian of a network's outputs by its parameters, as a matrix that is never formed unless that pays.

J has shape (n*K, p): J[i*K + k, c] = d f_k(x_i) / d theta_c. Row i*K + k is output k of sample i (torch's
order; paper 4 writes I_K (x) ., class-major: see `layout`). Columns follow `named_parameters()` that
require grad.

Three routes behind one interface, chosen by price and told by `route`:

* "dense"     every parameter sits in a dense layer used once: products and J J^T from the layers' inputs (n,
              d) and back-propagations (n, K, m), which are held: n * sum(d + K m) numbers instead of n K p.
* "stored"    n K p numbers fit the budget: J is formed at the first wide product, or once as many single
              products were asked for as forming it costs (about 16); from then on products are matrix
              products.
* "products"  neither fits: forward and reverse mode, about 10 samples at a time on a CPU. The linearisation
              is kept between products where it fits the budget, else computed again each time.

Not supported: batch norm in training mode, active dropout, anything else that couples samples (refused, with
the layers' names); complex parameters; parameters of mixed types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from labkit.measure import factors, layout
from labkit.measure.functional import Model, Network, Parameters
from labkit.measure.gram import add_products, kernel, mirror
from labkit.measure.price import MiB, Price, sample_flops, saved_numbers
from labkit.measure.products import Products, RowProducts, products
from labkit.measure.sample_rows import chunk_size, fill_rows
from labkit.measure.structure import Structure, structure

__all__ = ["Jacobian", "jacobian"]

# Forming J costs about as much as this many single products (measured on a ResNet20, K = 10: 16).
_FORMING = 16
_PIECE = 4096  # entries summed in float32 at most: about 1e-7 of relative error
_ROUTES = ("auto", "dense", "stored", "products")


def jacobian(
    model: Model, x: Tensor, *, params: Parameters = None, memory: int = 512 * MiB, route: str = "auto"
) -> Jacobian:
    """The Jacobian of `model` at `x` as an operator.

    J[i*K + k, c] = d f_k(x_i) / d theta_c, shape (n*K, p), in the type and on the device of the parameters.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)`. Copied in effect: later training does not
            move the operator.
        x: (n, ...) inputs.
        params: names of the parameters to differentiate by (default: all that require grad); for a function,
            the dictionary of tensors.
        memory: bytes that may be held between products (default 512 MiB); buffers within one product take
            about a quarter more.
        route: "auto" chooses by price; a name insists, "stored" whatever the budget.

    Returns:
        Jacobian with `matmat`, `rmatmat`, `gram`, `dense`, `rows`, `price`.

    Raises:
        ValueError: for active batch norm or dropout, a random model, types that do not fit, an unknown route,
            or "dense" where a parameter is not in a dense layer.

    Cost: a copy of the parameters and about ten passes over one to three samples; of its products see
    `Jacobian`.

    Error to expect: 1e-13 relative in float64, 1e-6 in float32 (single ReLUs that flip at rounding: 1e-4).

    Example:
        >>> J = jacobian(model, x)
        >>> svd(J, k=50).s
        >>> J.rows(one_hot) @ J.gram() @ J.rows(one_hot)
    """
    return Jacobian(model, x, params=params, memory=memory, route=route)


class Jacobian:
    """The operator that `jacobian` makes.

    Attributes:
        shape: (n*K, p). dtype, device: of the parameters. n, K, p: samples, outputs, parameters.
        columns: parameter's name -> slice of the columns. route: "dense", "stored" or "products".

    Cost: of a product with one vector, "products" takes a pass over x in forward mode, or a forward one (kept
    where it fits) and a backward one, and holds the first to about two more; "stored" 2 n K p flops; "dense"
    2 n m (d + K) for a layer (d, m). The last two begin with two forward and K + 1 backward passes, which
    fill n K p numbers, or n sum(d + K m). `gram` takes (n K)^2 m + n^2 d flops for a dense layer and
    (n K)^2 p for others, after those passes; `dense` those passes and n K p numbers.
    """

    @torch.inference_mode(mode=False)
    def __init__(
        self,
        model: Model,
        x: Tensor,
        *,
        params: Parameters = None,
        memory: int = 512 * MiB,
        route: str = "auto",
    ) -> None:
        if memory <= 0:
            raise ValueError(
                f"jacobian: memory is {memory}, needs a positive number of bytes, for example 512 * 2**20"
            )
        if route not in _ROUTES:
            raise ValueError(f"jacobian: route is {route!r}, takes one of {', '.join(map(repr, _ROUTES))}")
        self._network = Network(model, x, params)
        self._x = x.detach()
        self._memory = int(memory)
        self._structure = structure(self._network, self._x)
        self.n, self.K, self.p = x.shape[0], self._network.K, self._network.p
        self.shape = (self.n * self.K, self.p)
        self.dtype, self.device = self._network.dtype, self._network.device
        self.columns: Mapping[str, slice] = dict(self._network.columns)
        self._bytes = {
            "stored": self.n * self.K * self.p * self.dtype.itemsize,
            "dense": self.n * self._structure.held * self.dtype.itemsize,
        }
        self._wanted = route
        self._take(self._chosen(route))
        self._asked = 0
        self._matrix: Tensor | None = None
        self._factors: list[factors.Factors] | None = None
        self._chunks: dict[int, Products] = {}
        self._ways: dict[tuple[int, bool], type[Products]] = {}

    def __repr__(self) -> str:
        return f"Jacobian({self.shape[0]} x {self.p}, {self.dtype}, {self.device}, route={self.route!r})"

    @torch.inference_mode(mode=False)
    def matmat(self, V: Tensor) -> Tensor:
        """J V: (p, b) -> (n*K, b); a vector (p,) gives a vector.

        Raises:
            ValueError: if shape, type or device do not fit.
        """
        if V.ndim == 1:
            return self.matmat(V[:, None])[:, 0]
        self._check("matmat", "V", V, self.p)
        if (layers := self._layers()) is not None:
            return factors.push(layers, self._network, V)
        if self._forms(V.shape[1]):
            return _in_pieces(self._stored(), V)
        out = V.new_empty(self.n, self.K, V.shape[1])
        for start, stop, chunk in self._each_chunk(wide=V.shape[1] > 1):
            for c in range(V.shape[1]):
                out[start:stop, :, c] = chunk.push(V[:, c].contiguous())
        return out.view(self.n * self.K, -1)

    @torch.inference_mode(mode=False)
    def rmatmat(self, U: Tensor) -> Tensor:
        """J^T U: (n*K, b) -> (p, b); a vector (n*K,) gives a vector.

        Raises:
            ValueError: if shape, type or device do not fit.
        """
        if U.ndim == 1:
            return self.rmatmat(U[:, None])[:, 0]
        self._check("rmatmat", "U", U, self.n * self.K)
        if (layers := self._layers()) is not None:
            return factors.pull(layers, self._network, U)
        if self._forms(U.shape[1]):
            return self._stored().T @ U
        out = U.new_zeros(U.shape[1], self.p)  # one contiguous row a column, for the sums
        samples = layout.unrows(U, self.n, self.K)
        for start, stop, chunk in self._each_chunk(wide=U.shape[1] > 1):
            for c in range(U.shape[1]):
                chunk.pull(samples[start:stop, :, c].contiguous(), out[c])
        return out.T.contiguous()

    @torch.inference_mode(mode=False)
    def gram(self) -> Tensor:
        """J J^T (n*K, n*K): the empirical NTK in the layout of the rows. Never needs J within memory."""
        self._network.check()
        # Dense layers are cheaper by their factors, so rows serve only where other layers are the most of J.
        dense = sum(self._network.params[name].numel() for name in self._structure.dense)
        if self.route == "stored" and 2 * dense < self.p:
            out = torch.zeros(self.shape[0], self.shape[0], dtype=self.dtype, device=self.device)
            J = [self._stored()]
            add_products(J, J, out)
            mirror(out)
            return out
        out = kernel(self._network, self._structure, self._x, None, self._memory, self._factors)
        return out.view(self.shape[0], self.shape[0])

    @torch.inference_mode(mode=False)
    def dense(self) -> Tensor:
        """J itself (n*K, p), whatever the budget: n K p numbers."""
        self._network.check()
        if self._matrix is not None:
            return self._matrix.clone()
        J = torch.empty(self.n, self.K, self.p, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            places = {name: J[:, :, columns] for name, columns in self.columns.items()}
            fill_rows(self._network, self._structure, self._x, places, self._memory)
        return J.view(self.shape)

    def rows(self, y: Tensor) -> Tensor:
        """Labels or residuals (n, K) arranged along the rows (n*K,).

        Raises:
            ValueError: if `y` is not (n, K).
        """
        if tuple(y.shape) != (self.n, self.K):
            raise ValueError(f"rows: y has shape {tuple(y.shape)}, needs (n, K) = ({self.n}, {self.K})")
        return layout.rows(y)

    @torch.inference_mode(mode=False)
    def price(self) -> Price:
        """What this operator costs, told before it is paid (see `Price`)."""
        flops = 2 * sample_flops(self._network, self._x) * self.n
        held = self._bytes.get(self.route, self._saved * self.n if self._keeps else 0)
        first = {"dense": self.K / 2 + 1, "stored": _FORMING, "products": 0}[self.route]
        return Price(self.route, held, flops, round(first), self._bytes["stored"], self._chunk())

    @property
    def gram_pairs(self) -> float:
        """What `gram` costs by its flops, in pairs of products J v and J^T u: an SVD weighs it by that."""
        m, forward = self.shape[0], max(1, sample_flops(self._network, self._x)) * self.n
        outputs = [value.shape[0] for name, value in self._network.params.items() if value.ndim > 1]
        if self.route == "dense":
            flops = m * m * sum(outputs) + self.K * forward
        else:
            passes = max(1, self._bytes["stored"] // self._memory) if self.route == "products" else 1
            flops = m * m * self.p + (passes * (1 + self.K) + self.K) * forward
        return flops / (4 * forward)

    # How the routes are kept.

    def _chosen(self, route: str) -> str:
        only_dense = self._structure.route == "dense"
        if route == "dense" and not only_dense:
            raise ValueError(
                "jacobian: route='dense' needs every parameter in a dense layer used once; "
                f"{sorted(set(self.columns) - self._structure.dense)} are not. Use route='auto'"
            )
        if route != "auto":
            return route
        if only_dense and self._bytes["dense"] <= self._memory:
            return "dense"
        return "stored" if self._bytes["stored"] <= self._memory else "products"

    def _take(self, route: str) -> None:
        self.route = route
        self._saved = 0 if route == "dense" else saved_numbers(self._network, self._x) * self.dtype.itemsize
        self._keeps = self._saved * self.n <= self._memory

    def _check(self, method: str, name: str, M: Tensor, length: int) -> None:
        if M.ndim != 2 or M.shape[0] != length:
            raise ValueError(
                f"{method}: {name} has shape {tuple(M.shape)}, needs ({length}, b); J is {self.shape[0]} x "
                f"{self.p}"
            )
        if M.dtype != self.dtype or M.device != self.device:
            raise ValueError(
                f"{method}: {name} is {M.dtype} on {M.device}, J is {self.dtype} on {self.device}; pass "
                f"{name}.to('{self.device}', {self.dtype})"
            )
        self._network.check()

    def _forms(self, columns: int) -> bool:
        self._asked += columns
        worth = self._asked >= _FORMING or RowProducts in self._ways.values()
        return self.route == "stored" and (self._matrix is not None or worth)

    def _stored(self) -> Tensor:
        if self._matrix is None:
            self._chunks.clear()
            self._matrix = self.dense()
        return self._matrix

    def _layers(self) -> list[factors.Factors] | None:
        """The factors on the route "dense", which is left if some samples use the layers in another way."""
        if self.route == "dense" and self._factors is None:
            self._factors = factors.factors(self._network, self._x)
            if self._factors is None:
                self._structure = Structure(frozenset(), frozenset(), frozenset(self.columns), 0)
                self._take(self._chosen(self._wanted))
        return self._factors

    def _chunk(self) -> int:
        return chunk_size(self._network, self.n, self._saved // self.dtype.itemsize, self._memory)

    def _each_chunk(self, *, wide: bool) -> Iterator[tuple[int, int, Products]]:
        # For one product that is not kept, forward mode beats building the linearisation first.
        tapped = not self._structure.generic and (self._keeps or wide)
        step = self._chunk()
        for start in range(0, self.n, step):
            part = self._x[start : start + step]
            chunk = self._chunks.get(start)
            if chunk is None and (start, tapped) in self._ways:
                chunk = self._ways[start, tapped](self._network, part)
            elif chunk is None:
                chunk = products(self._network, part, tapped=tapped)
                self._ways[start, tapped] = type(chunk)
            if self._keeps:
                self._chunks[start] = chunk
            yield start, start + part.shape[0], chunk


def _in_pieces(J: Tensor, V: Tensor) -> Tensor:
    """J V, with the sums of pieces added in float64.

    A plain float32 sum over all parameters of a ResNet20 is wrong in the fifth digit.
    """
    if J.dtype == torch.float64 or J.device.type == "mps":  # which has no float64
        return J @ V
    total = torch.zeros(len(J), V.shape[1], dtype=torch.float64, device=J.device)
    for left, right in zip(J.split(_PIECE, dim=1), V.split(_PIECE), strict=True):
        total += left @ right
    return total.to(J.dtype)
