# %% [markdown]
# # An assignment of your own
#
# Copy this file, give it another name, and change it cell by cell. The tags tell labkit what each cell is;
# `labkit assignment release FILE --out DIR` says what is missing.

# %% [markdown]
# ## Exercises
#
# 8 points. Work in float64, with torch alone.

# %% tags=["exercises-setup"]
import torch

import labkit
from labkit.classroom.exercises import attempt, check_prediction, grade, same, unchanged

# %% [markdown]
# ### 6.1 Which layer has moved most? (3 points)
#
# A network started from matrices $Z_k$ and has come to $W_k$. Return the layer with the largest
# $\|W_k-Z_k\|_F^2$, counted from 0, and its share of $\sum_k\|W_k-Z_k\|_F^2$. About 3 lines.


# %% tags=["exercise-6.1"]
def furthest_layer(W, Z):
    """The layer that has moved most, and its share of the squared distance.

    W, Z: lists of d matrices, not all of them equal. Returns a whole number and a float.
    """
    raise NotImplementedError


with attempt("6.1"):
    layer, share = furthest_layer([torch.ones(1, 1), torch.eye(2)], [torch.zeros(1, 1), -torch.eye(2)])
    assert layer == 1 and abs(share - 8 / 9) < 1e-6


# %% tags=["solution-6.1"]
def solution_furthest_layer(W, Z):
    moved = torch.stack([(A - B).square().sum() for A, B in zip(W, Z, strict=True)])
    layer = int(moved.argmax())
    return layer, float(moved[layer] / moved.sum())


# %% tags=["tests-6.1"]
def check_furthest_layer(furthest_layer):
    generator = torch.Generator().manual_seed(61)  # Sizes and values come from a seed: no constant can pass.
    for d in (1, 2, 3, 7):
        shapes = torch.randint(1, 6, (d, 2), generator=generator).tolist()
        W, Z = ([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in "WZ")
        with unchanged(W=W, Z=Z):
            layer, share = furthest_layer(W, Z)
        moved = []  # by another route than the solution's
        for A, B in zip(W, Z, strict=True):
            pairs = zip(A.ravel().tolist(), B.ravel().tolist(), strict=True)
            moved.append(sum((a - b) ** 2 for a, b in pairs))
        same(f"d = {d}: the layer", layer, moved.index(max(moved)))
        same(f"d = {d}: its share", share, max(moved) / sum(moved))


grade("6.1", check_furthest_layer, solution=solution_furthest_layer, answer=furthest_layer)

# %% [markdown]
# **Then.** Ten steps of gradient descent on 200 digits: which layer goes first?

# %% tags=["then-6.1"]
digits = labkit.load("digits", n_train=200, flatten=True, dtype=torch.float64)
net = labkit.mlp(64, 100, 2, 10, seed=0, dtype=torch.float64)
start = [layer.weight.detach().clone() for layer in net.layers]
for _ in range(10):
    net.zero_grad()
    torch.nn.functional.cross_entropy(net(digits.x_train), digits.y_train).backward()
    with torch.no_grad():
        for weight in net.parameters():
            weight -= 0.1 * weight.grad
layer, share = solution_furthest_layer([layer.weight.detach() for layer in net.layers], start)
display(f"layer {layer} of {len(start)} has {share:.0%} of the squared distance")

# %% [markdown]
# ### 6.2 Predict (2 points)
#
# Fill in `prediction` before you run the cell above, and `observed` afterwards.

# %% tags=["exercise-6.2"]
prediction = {
    "least share": None,  # provable: what the share of 6.1 can never fall below, with three layers
    "layer": None,  # open: "first", "middle" or "last"
}
observed = dict.fromkeys(prediction)

# %% tags=["tests-6.2"]
allowed = {"least share": (0.0, 1.0), "layer": ("first", "middle", "last")}
check_prediction(prediction, observed, allowed, {"least share": 1 / 3}, name="6.2")

# %% [markdown]
# ### 6.3 Explain (open, 3 points)
#
# Freeze the layer that moves most, and train again. What do you expect of the others? Five sentences at most.

# %% [markdown] tags=["exercise-6.3"]
# *Your answer.*

# %% [markdown] tags=["solution-6.3"]
# 1. Says what the frozen layer did before, and that the loss must now fall without it.
# 2. Expects the others to move further than they did, with a reason.
# 3. Names a run that would show it, at equal loss.
