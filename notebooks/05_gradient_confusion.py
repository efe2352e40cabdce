# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # When do gradients get in each other's way?
#
# Two images pull the same weights, each its own way. If they pull apart, a step for one undoes a step for the
# other, and SGD has to average. How often does that happen, how hard do they pull, and what does the
# architecture do about it?
#
# This notebook follows *The Effect of Neural Net Architecture on Gradient Confusion & Training Performance*
# (ICLR 2020 submission). Afterwards you can **compute the confusion $\eta$, the smallest and the mean cosine
# of a set of gradients, and say what each hides**, **predict what width, depth and skips do to them**, **run
# the recursion of Thm 3.1 and find its floor**, and **keep angle and scale apart**.
#
# Under each figure stands a table: what was predicted, what was measured, the rule written before the run,
# the verdict, and in how many other blocks of seeds it came out the same. A *theorem* is a check of a
# proved statement; a *prediction* sets a number from a formula beside a measurement; a *finding* is what
# the paper saw, and it replicates here or it does not.
#
# *Run all takes about a minute on a laptop with two cores and 1.3 GB. Dashed is predicted, solid is measured,
# grey is an earlier run. Every measured line is a mean over seeds, in a band from the lowest to the highest.*

# %%
import labkit
import numpy as np
from labkit import measure
from labkit.figures import Chart, Level, Measured, Panel
from labkit.labs import confusion as lab

# %% [markdown]
# ## 1 · The question
#
# A fully connected network with 30 hidden layers, untrained, and 100 images. Each image has a gradient of its
# own loss; here are the cosines of all 4,950 pairs, at two widths.
#
# **Your bet.** A narrow network (10 units a layer) and a wide one (300): which has gradients that point
# against each other more? (a) The wide one: more weights to disagree about; (b) the narrow one; (c) neither.

# %%
bet = "a"

# %%
# A second core makes what comes later: what takes long, then from the end, so that they meet.
labkit.ahead(lab.SKIPS, lab.ENDING, lab.NETWORKS, lab.HESSIAN, lab.DIVERSITY, lab.BATCHES,
             lab.SCALE)
images = labkit.load("digits", n_train=100, flatten=True, normalize="standardize+unit-length")
edges = np.linspace(-1, 1, 41)
marks = []
for color, width in enumerate((10, 300)):
    net = labkit.mlp(64, width, 30, 10, activation="tanh", init="glorot", bias=False, seed=0)
    G = measure.gradient_gram(net, 8 * images.x_train, images.y_train,
                              loss="cross-entropy").numpy()
    cosines = (G / np.sqrt(np.outer(G.diagonal(), G.diagonal())))[np.triu_indices(100, 1)]
    counts = np.histogram(cosines, edges, density=True)[0]
    marks.append(Measured((edges[1:] + edges[:-1]) / 2, counts, f"width {width}", color))
panel = Panel("Cosines of two gradients", [*marks, Level(0, axis="x")], "cosine", "density")
says = "Angles between the gradients of two images, in a narrow and a wide network."
Chart(panel, f"{says}\n100 digits, 30 layers, untrained")

# %% [markdown]
# Width changes how widely the cosines spread, and hardly how many are negative: 48 of 100 at width 10, 44 at
# width 300. What a narrow network has more of is pairs that *oppose* each other.
#
# No gradient was ever formed: on dense layers $\langle g_i,g_j\rangle$ is a sum over layers of
# $\langle\delta_i,\delta_j\rangle\langle h_i,h_j\rangle$ (exercise 5.4 lets you write it).
#
# ## 2 · Definition, and the smallest case
#
# Def. 2.1: the functions $f_1,\dots,f_N$ have **confusion** $\eta\ge0$ at $w$ if
#
# $$\langle\nabla f_i(w),\nabla f_j(w)\rangle\ge-\eta\qquad\text{for all } i\ne j.$$
#
# Least squares, $f_i=\frac12(x_i^\top w-y_i)^2$ with $\|x_i\|=1$, 100 samples. The gradient is
# $(x_i^\top w-y_i)\,x_i$, so the cosine of two of them is the data's own **up to sign**, whatever $w$ is.
# $d=120$ against $d=80$, each at its own best learning rate:
#
# | paper | labkit | meaning |
# | --- | --- | --- |
# | $\eta$ | `eta` | confusion, in units of a squared gradient |
# | $\beta$, $\ell$ | `depth`, `width` | hidden layers, units a layer |
# | $\alpha$ | step size, `lr` | |
# | $L$, $\mu$ | 1, 1 | of each $f_i$, known here in closed form |

# %%
regression = labkit.drain(lab.REGRESSION)
display(labkit.Panel(regression), labkit.judge_all(regression))

# %% [markdown]
# It replicates: more dimensions are nearer to orthogonal, and faster. But $d=80$ also has labels that no $w$
# fits: two explanations, one experiment. *Label noise* 0 tells them apart: both dimensions then reach their
# labels, and $d=80$, still the more confused, is the faster. Here it was the labels.
#
# ## 3 · The lemma
#
# Random directions are nearly orthogonal. For $N$ uniform unit vectors (Lemma B.1)
#
# $$P\Big(\max_{i\ne j}|\langle x_i,x_j\rangle|\ge\nu\Big)\le N^2\sqrt{\pi/8}\;e^{-(d-1)\nu^2/2}.$$
#
# The bound, before a single vector is drawn; then the vectors:

# %%
sphere = lab.SPHERE.preset()
lab.SPHERE.figure((), lab.SPHERE.predict(lab.SPHERE.prepare(sphere)), settings=sphere)

# %%
directions = labkit.drain(lab.SPHERE, sphere)
display(labkit.Panel(directions), labkit.judge_all(directions))

# %% [markdown]
# A check of a lemma, which can fail by a bug alone. At $N=100$, $d=120$ the bound is above 1, that is
# empty, up to $\nu\approx.39$. Beyond it the $\nu$ that it
# gives for a probability is within a quarter of the true one.
#
# ## 4 · The theorem
#
# Let each $f_i$ be $L$-*smooth*, its gradient changing by at most $L\|w-w'\|$, and obey the
# *Polyak–Łojasiewicz* (PL) inequality $\frac12\|\nabla f_i\|^2\ge\mu(f_i-f_i^*)$: where its slope is small,
# it is near its minimum. Thm 3.1: for $\alpha<2/(NL)$ the expected gap $\mathbb E F-F^*$ obeys
# $b\leftarrow\rho\,b+\alpha\eta_t$ with $\rho=1-\frac{2\mu}N(\alpha-\frac{NL\alpha^2}2)$. **The step that
# matters** is this one; the experiment gets it from here.


# %%
def recursion(gap0, etas, L, mu, n, alpha):
    """b₀ = gap0, then b ← ρ b + α η_t, along the last axis of etas (Thm 3.1)."""
    rho = 1 - 2 * mu / n * (alpha - n * L * alpha**2 / 2)
    bound = [np.asarray(gap0, dtype=float)]
    for t in range(np.shape(etas)[-1]):
        bound.append(rho * bound[-1] + alpha * np.asarray(etas)[..., t])
    return np.stack(bound, axis=-1)


# %% [markdown]
# Expect: valid. And tight?

# %%
rate = labkit.drain(lab.RATE, recursion=recursion)
display(labkit.Panel(rate), labkit.judge_all(rate, ("C3",)))

# %% [markdown]
# Valid, and almost two thousand times too high. Which step of the proof loses? It adds up *all* pairs as if
# each were the worst one. Put the mean over pairs $i\ne j$ in the place of the worst: still valid, as it is
# all that the proof uses, and eighty times nearer. Leave $\eta$ out: false. (The mean must leave out $i=j$.
# Over all $i,j$ it is $\|\nabla F\|^2\ge0$, so $\eta$ would always be 0.)
#
# ## 5 · Slide the step
#
# The floor of the theorem is $N\eta/\big(2\mu(1-NL\alpha/2)\big)$. In the panel above, slide *step size ×
# nL* from 1 to .5 and watch three floors move together (middle): the theorem's, with the worst pair, falls
# by a third and then hardly any more; so does the mean pair's; SGD's own falls by half, and goes on. **The
# theorem's floor is not SGD's**: "a smaller step removes the floor" is true of the run and not of the bound
# (§6 of the paper says so, too).
#
# ## 6 · Architecture
#
# Now networks, at initialisation, over a **fixed** number of pairs of gradients of *single samples*. The
# paper's claims: wider is less confused, deeper is more confused, skip connections mend it. **Strategy
# 4.1**, for which Thm 4.2 speaks, draws the first layer with variance $1/d$ and all others with
# $1/(\kappa\ell)$: $\kappa=1$ is LeCun's initialisation, $\kappa=\frac12$ He's. Dashed is the law of
# infinitely wide layers, known beforehand.

# %%
start = labkit.drain(lab.INITIALIZATION)
display(labkit.Panel(start), labkit.judge_all(start, ("C7", "C8", "C20")))

# %% [markdown]
# Both findings replicate, in angle, in networks as deep and as narrow as these. The dashed line of Glorot's
# networks goes the *other* way, a little down with width: angles of infinite width get no better by width.
# What falls is fluctuation, and it goes as depth over width. So the two axes are one: with widths in
# proportion to depths (left, below) the cosines stay together from 10 layers to 100 (C20).
#
# ### Order and chaos
#
# Thm 4.2 leaves $\kappa$ open. It decides (right, both panels): *below* 1 a signal's small differences grow
# from layer to layer, gradients explode, and images lose sight of each other (chaos); *above* 1 signals and
# gradients die out (order). **Predict**, then slide $\kappa$ from 4 to $\frac12$: does $\eta$ grow with
# depth, and does the angle get worse?

# %%
display(labkit.judge_all(start, ("C11", "C19")))

# %% [markdown]
# $\eta$ and the angle go opposite ways. At $\kappa=4$, which small weights ask for, $\eta$ shrinks by 56
# decades over depth while the smallest cosine falls by .5; at He's $\kappa=\frac12$ $\eta$ grows by six
# decades and the angle hardly moves. Only at $\kappa=1$ do both go as the theorem says. So C11, the promise
# for every $\kappa$, *fails*, and C19, stated over $\kappa$, holds: never read "small $\eta$" as "trains
# fast".
#
# ### Two teams, one network
#
# One says that its network is confused, the other that it is not. Same weights, same images. They differ in
# two numbers that reach no training, so that both sliders act at once: how many *samples* stand in a
# gradient (the paper takes minibatches of 128), and over how many pairs the worst is sought. And which pair
# *is* the worst?

# %%
end = labkit.drain(lab.NETWORKS)
display(labkit.Panel(end), labkit.judge_all(end))

# %% [markdown]
# At the start the smallest cosine goes from below −.5 to above .5 between minibatches of 1 and of 128: of
# the mean gradient, which all share, a minibatch of $B$ keeps the whole and of what samples dispute
# $1/\sqrt B$. So $\eta$ is 0 at the paper's $B$, in every untrained network here. From 105 pairs to 79,800
# the smallest cosine can only fall. **$\eta$ belongs to network, $B$ and number of pairs.**
#
# The two images of the worst pair: at the start they are often of *one* class. Their residuals are nearly
# the same vector, so that their gradients agree as the images do, and oppose each other where the images do
# (cosines of centred images are of both signs). Between classes residuals are nearly orthogonal, and little
# can happen. Once something is learned, the worst pairs are images that are taken for each other.
#
# ### Play
#
# **(1)** *Samples* 100 → 400: the point slides down its curve. **(2)** *Samples a gradient* 1 → 128: η
# becomes 0 or nearly. **(3)** *Hidden units* 100 → 10: the cosines spread, and the smallest comes near −1.
# **(4)** *Hidden layers* 30 → 60: the loss stays near 1. Then switch *skip connections* on: it falls below
# .5.

# %% [markdown]
# ## 7 · Angle is not scale
#
# $\eta$ has the unit of a squared gradient. In the width sweep above it **grows** with the width, as
# gradients get longer, while the cosines say less confused. Thm 4.1 asks for *small weights*, $\|W_p\|\le1$
# (Assumption 1), and data on the sphere. With orthogonal weights angle and scale come apart cleanly:

# %%
scale = labkit.drain(lab.SCALE)
display(labkit.Panel(scale), labkit.judge_all(scale, ("C5",)))

# %% [markdown]
# Here the cosine knows the dimension and not the depth, while $\eta$ grows with depth. Is that depth as
# such? No: it is an identity of *orthogonal* matrices, which turn nothing. *Weights* in the panel is the
# control: Gaussian ones divided by their norm keep Assumption 1 just as well (the run above in grey):

# %%
other = labkit.drain(lab.SCALE, lab.SCALE.preset(weights="gaussian"))
display(other.figure((scale,)), labkit.judge_all(other, ("C5",)))

# %% [markdown]
# Now the angle gets worse with depth. So the experiment shows that $\eta$ *can* grow by scale alone, and no
# more than that: ask for cosines, and for the loss beside them.
#
# ## 8 · Where it fails
#
# All of this was at the start. Now the end of training as the paper has it: three depths, networks with
# skips, batch norm, both or neither, **each at its own best learning rate**, minibatches that share no
# sample (shared samples alone make cosines positive), and the loss beside every cosine.

# %%
ending = labkit.drain(lab.ENDING)
display(labkit.Panel(ending), labkit.judge_all(ending))

# %% [markdown]
# The loss goes as the paper says: depth hurts the plain network, and skips, alone or with batch norm, mend
# it (C21). The cosines do not: C9 *fails*. What the deep plain network has not learned, all its minibatches
# still ask for, so they *agree*. The paper's order of cosines is one of networks that have all learned the
# same; here the loss belongs beside every cosine.
#
# **Your bet** was (a), (b) or (c)? Sections 1 and 6 speak for (b), in angle, before training.

# %% [markdown]
# ## Further claims
#
# The rest of the paper, a figure and a table each. `labkit run 5 --all-claims` is the same audit.
#
# **Skip connections and batch norm (Figs 4, 15),** each on and off, over depth.

# %%
skips = labkit.drain(lab.SKIPS)
display(labkit.Panel(skips), labkit.judge_all(skips))

# %% [markdown]
# Before training, both together keep the cosines up; after it, with both, the deep network has learned (C10
# replicates). High is not good by itself: with skips alone an untrained network errs in the same way on all
# images, and its gradients all agree. After training the paper's order of the cosines does not replicate
# (C16): at depth 22 the plain network is still near the loss of guessing, 2.3; at depth 10 it has begun to
# learn, later than the others, and its gradients agree, too. The paper's own families are presets:
# `labkit run 5 --experiment skips --preset cnn-depth`, `cnn-width`, `wrn-depth`, `wrn-width` (hours, a GPU).
#
# **Stationary points (Thm 3.2),** without the PL condition: a check, valid and vacuous (right panel).

# %%
display(rate.figure(), labkit.judge_all(rate, ("C4",)))

# %% [markdown]
# **The constants of Lemma D.1,** at sampled points: a check (right panel). $\zeta=\partial f/\partial g$ is
# how the loss follows the output; the lemma's $\zeta_0=2\sqrt{\beta+1}$ bounds how fast it changes.

# %%
display(scale.figure(), labkit.judge_all(scale, ("C6",)))

# %% [markdown]
# **Minibatches (§2).** The variance of an inner product falls as $1/B^2$ only where the mean gradient is
# small; before, a term in $1/B$ is in the way.

# %%
batches = labkit.drain(lab.BATCHES)
display(labkit.Panel(batches), labkit.judge_all(batches))

# %% [markdown]
# **Variance and diversity (§6),** two checks. A bounded variance bounds $\eta$, and not the other way
# round. Gradient diversity cannot tell orthogonal gradients from opposed ones.

# %%
diversity = labkit.drain(lab.DIVERSITY)
display(labkit.Panel(diversity), labkit.judge_all(diversity))

# %% [markdown]
# **Low-rank Hessians (App. C).** Near a minimum, random Hessians of low rank keep gradients apart.

# %%
hessian = labkit.drain(lab.HESSIAN)
display(labkit.Panel(hessian), labkit.judge_all(hessian))

# %% [markdown]
# ## What this does not explain
#
# - Why real networks train fast: with the worst pair the rate theorem is far from every run of this notebook.
# - The end of training. Confusion at initialisation says nothing certain about it.
# - Cause. Width changes cosines and much else; a run that is faster and less confused shows both, not why.
#
# ## Errata and notes
#
# Of the paper: an "average" confusion must leave out $i=j$; the trace in eq. (7) has $x_i$ twice where the
# last factor belongs to $x_j$, and App. D's recurrence takes $\sigma'$ of $H_p$, which $\sigma$ has passed
# already; Strategy 4.1 breaks Assumption 1 ($\|W_0\|\approx1+\sqrt{\ell/d}$) and needs $\kappa\ge4$;
# $\zeta_0\le2\sqrt{\beta+1}$. In our copy of the text alone, perhaps: the halves of (A1) and (A2), and the
# factors in Thms 3.1 and 3.2. More, with the function for each equation: `labkit.theory.confusion`,
# `confusion_rates`.
#
# ## Every figure and theorem of the paper
#
# | paper | here | word |
# | --- | --- | --- |
# | Fig. 1, linear regression | C1, section 2 | holds |
# | Figs 2, 3, 7, 8: CNN, curves over depth and width | C9 (MLP); presets `cnn-depth`, `cnn-width` | *fails* |
# | Figs 4, 15: skips and batch norm | C10, C16 (CNN), C21 (MLP) | C16 *fails* |
# | Figs 5, 6: MLP over depth and width | C9; at the start C7, C8, C20 | C9 *fails* |
# | Figs 9, 10, 12, 14: CIFAR-100 | none: no preset takes it; only the data differ | |
# | Figs 11, 13: WRN without batch norm | *skips* in C8, C21; presets `wrn-depth`, `wrn-width` | hold |
# | Def. 2.1, its remarks: minibatches, pairs | C12, C17 | hold |
# | §2: logistic regression, orthogonal data | none: there $\eta=0$ by definition; least squares in C3 | |
# | §2, App. C: Hessians of low rank | C14 | holds |
# | Thms 3.1, 3.2 | C3, C4, sections 4 and 5 | vacuous |
# | Lemmas B.1, D.1 | C2, C6 | hold |
# | Thm 4.1, Assumption 1 | C5, section 7 | vacuous |
# | Cor. 4.1 | none: Thm 4.1 at half the $\eta$, emptier than what is empty | |
# | Thm 4.2, both parts | C7, C8, C11, C19; of its numbers none, $c_1$, $c_2$ are open | C11 *fails* |
# | §6: variance, diversity | C13, C15 | hold |
# | §7: width with depth; classes | C20; C18 | hold |

# %% [markdown]
# ## Exercises
#
# 20 points. Six tasks: four in code (3 to 15 lines each), one bet, one open question. Work in float64,
# with torch alone.
#
# Throughout, `G` holds one gradient a row, and a *pair* is two different rows: $i\ne j$.

# %% [markdown] tags=["exercises-note"]
# Nothing below depends on your answers, so *Run All* never stops here: the cells under *Then* call the
# solutions; put your own function in their place as soon as it passes. Each solution and its tests are folded
# in below its task.

# %% tags=["exercises-setup"]
import math
from itertools import pairwise

import numpy as np
import torch

import labkit
from labkit.classroom.exercises import Frugal, attempt, check_prediction, grade, same, unchanged
from labkit.figures import Chart, Measured, Panel, Points, Predicted

# %% [markdown]
# ### 5.1 Three numbers for one matrix (3 points)
#
# Def. 2.1 asks for the smallest $\eta\ge0$ with $\langle g_i,g_j\rangle\ge-\eta$ for all pairs. Return it,
# together with the smallest and the mean cosine over the same pairs:
#
# $$\eta=\max\Big(0,\,-\min_{i\ne j}\langle g_i,g_j\rangle\Big),\qquad
# \min_{i\ne j}\cos(g_i,g_j),\qquad \frac{1}{N(N-1)}\sum_{i\ne j}\cos(g_i,g_j).$$
#
# The worst inner product and the worst cosine can be *different* pairs. A gradient of zeros has cosine 0 with
# every other; one of norm $10^{-20}$, which deep networks do have, has a direction like any other. About 5
# lines.


# %% tags=["exercise-5.1"]
def confusion(G):
    """Gradient confusion, and two cosines, over the pairs of different rows.

    G (N, P): one gradient a row, N >= 2.
    Returns three floats: eta >= 0, min_cos, mean_cos.
    """
    raise NotImplementedError


with attempt("5.1"):
    G = torch.tensor([[10, 0], [-1, 1], [-0.01, 0]], dtype=torch.float64)
    assert np.allclose(confusion(G), (10, -1, -1 / 3))


# %% jupyter={"source_hidden": true} tags=["solution-5.1"]
def solution_confusion(G):
    norms = G.norm(dim=1, keepdim=True)
    unit = G / norms.where(norms > 0, torch.ones_like(norms))
    pairs = ~torch.eye(len(G), dtype=torch.bool)
    inner, cosines = (G @ G.T)[pairs], (unit @ unit.T)[pairs]
    return max(0.0, -float(inner.min())), float(cosines.min()), float(cosines.mean())


# %% jupyter={"source_hidden": true} tags=["tests-5.1"]
def check_confusion(confusion):
    generator = torch.Generator().manual_seed(51)
    names = ("eta", "min_cos", "mean_cos")
    cases = []
    for N, P in [(2, 1), (2, 5), *torch.randint(3, 12, (5, 2), generator=generator).tolist()]:
        G = torch.randn(N, P, generator=generator, dtype=torch.float64)
        G = G * 10 ** torch.randn(N, 1, generator=generator, dtype=torch.float64)  # of unlike lengths
        cases += [(f"N = {N}", G), (f"N = {N}, all entries positive", G.abs())]
        zeros = G.clone()
        zeros[N // 2] = 0
        cases += [(f"N = {N}, a row of zeros", zeros), (f"N = {N}, only zeros", 0 * G)]
        cases.append((f"N = {N}, all entries positive, a row of zeros", zeros.abs()))
    for what, G in cases:
        with unchanged(G=G):
            found = confusion(G)
        same(f"{what}: numbers returned", len(found), 3)
        inner, cosines = [], []
        for i, g in enumerate(G.tolist()):
            for j, h in enumerate(G.tolist()):
                if i != j:
                    inner.append(sum(a * b for a, b in zip(g, h, strict=True)))
                    lengths = math.hypot(*g) * math.hypot(*h)
                    cosines.append(inner[-1] / lengths if lengths else 0.0)
        right = max(0.0, -min(inner)), min(cosines), sum(cosines) / len(cosines)
        for name, value, expected in zip(names, found, right, strict=True):
            same(f"{name}, {what}", value, expected)
        # Gradients ten times as long, or vanishing ones: eta has a unit, a cosine has none.
        for scale in (10.0, 1e-20):
            eta, *others = confusion(scale * G)
            same(f"eta / {scale:g}², {what}, G × {scale:g}", float(eta) / scale**2, right[0])
            for name, value, expected in zip(names[1:], others, right[1:], strict=True):
                same(f"{name}, {what}, G × {scale:g}", value, expected)


grade("5.1", check_confusion, solution=solution_confusion, answer=confusion)

# %% [markdown]
# **Then.** What $\eta$ hides. Least squares as in Fig. 1, $N=100$ samples on the unit sphere in $d=80$ and
# $d=120$ dimensions with random labels, plain gradient descent. The gradient of sample $i$ is a multiple of
# $x_i$, so each cosine is that of two *inputs*, up to its sign: no $w$ can go below the dashed line.

# %% tags=["then-5.1"]
steps, etas, angles = np.unique(np.geomspace(1, 2000, 25).astype(int)), [], []
for color, d in enumerate((80, 120)):
    # eta and cosine, seeds, steps
    found, lowest = np.empty((2, 3, len(steps))), np.empty((3, len(steps)))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        X, y = (torch.randn(100, k, generator=generator, dtype=torch.float64) for k in (d, 1))
        X, w = torch.nn.functional.normalize(X), torch.zeros(d, 1, dtype=torch.float64)
        lowest[seed] = -(X @ X.T).fill_diagonal_(0).abs().max()
        lr = 1 / torch.linalg.matrix_norm(X, 2) ** 2
        for i, count in enumerate(np.diff(steps, prepend=0)):
            for _ in range(count):
                w = w - lr * (X.T @ (X @ w - y))
            found[:, seed, i] = solution_confusion((X @ w - y) * X)[:2]
    etas.append(Measured(steps, found[0], f"d = {d}", color))
    angles += [Measured(steps, found[1], f"d = {d}", color),
               Predicted(steps, lowest, "", color)]
confused = Panel("Confusion η", etas, "step", "", "log", "log")
angle = Panel("Smallest cosine", angles, "step", "", "log", ylim=(-1, 0))
says = "Confusion and angle of gradients while a network learns random labels."
Chart([confused, angle],
      f"{says}\nrandom labels · N 100 · seeds 0–2 · dashed: −max |cos| of the inputs")

# %% [markdown]
# With $d=120$ all labels can be fitted, and $\eta$ falls by seven orders of magnitude along with the squared
# residuals; with $d=80$ they cannot, and it stops. All the while no angle changes by more than its sign:
# $\eta$ near 0 says that the gradients are *short* just as well as that they agree.

# %% [markdown]
# ### 5.2 Means without pairs, and a blind measure (4 points)
#
# **a.** The proof of Thm 3.1 meets the pairs only through their mean
# $\frac1{N(N-1)}\sum_{i\ne j}\langle g_i,g_j\rangle$. Compute it in $O(NP)$: the tests take $N=100{,}000$.
# About 3 lines. (With the diagonal the mean is never negative: over *all* $i,j$ it is $\|\nabla F\|^2$. A
# definition of confusion by that mean would call no network confused.)


# %% tags=["exercise-5.2a"]
def mean_inner(G):
    """The mean inner product over the pairs of different rows, without forming the pairs.

    G (N, P): one gradient a row, N >= 2. Returns a float.
    """
    raise NotImplementedError


with attempt("5.2a"):
    cross = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert math.isclose(mean_inner(cross), -1 / 3)


# %% jupyter={"source_hidden": true} tags=["solution-5.2a"]
def solution_mean_inner(G):
    N = len(G)
    every = G.sum(dim=0).square().sum()  # over all i and j
    return float((every - G.square().sum()) / (N * (N - 1)))


# %% jupyter={"source_hidden": true} tags=["tests-5.2a", "points-2"]
def check_mean_inner(mean_inner):
    generator = torch.Generator().manual_seed(521)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    for N, P in [(2, 1), (2, 6), *torch.randint(3, 14, (6, 2), generator=generator).tolist()]:
        G = draw(N, P) * (1 + draw(N, 1).square())
        unit = G / G.norm(dim=1, keepdim=True)
        for what, rows in (("", G), (" of norm 1", unit), (" in opposed halves", torch.cat([G, -G]))):
            with unchanged(G=rows):
                found = mean_inner(rows)
            inner, vectors = [], list(enumerate(rows.tolist()))
            for i, g in vectors:
                inner += [sum(a * b for a, b in zip(g, h, strict=True)) for j, h in vectors if i != j]
            same(f"{len(rows)} vectors{what}", found, sum(inner) / len(inner))
        # No mean is lower than that of vectors that add up to zero.
        centered = G - G.mean(dim=0)
        lowest = -float(centered.square().sum(dim=1).mean()) / (N - 1)
        same(f"{N} vectors that add up to 0", mean_inner(centered), lowest)
    # A few vectors, each of them up to thousands of times: their 7 × 7 products tell the mean.
    kinds, N = draw(7, 20), 100_000
    counts = torch.tensor([1, 99, 900, 9_000, 20_000, 30_000, 40_000])
    G = kinds.repeat_interleave(counts, dim=0)[torch.randperm(N, generator=generator)]
    before = G.clone()
    try:
        with Frugal(calls=1000, entries=2**22):
            found = mean_inner(G)
    except AssertionError:
        raise AssertionError("N = 100,000: 10¹⁰ pairs are too many to look at one by one") from None
    assert torch.equal(G, before), "the input G is overwritten; work on a copy"
    products, c = (kinds @ kinds.T).tolist(), counts.tolist()
    pairs = sum(c[a] * (c[b] - (a == b)) * products[a][b] for a in range(7) for b in range(7))
    same("N = 100,000", found, pairs / (N * (N - 1)))


grade("5.2a", check_mean_inner, solution=solution_mean_inner, answer=mean_inner)

# %% [markdown]
# **b.** *Gradient diversity*, $\sum_i\|g_i\|^2/\|\sum_ig_i\|^2$, is used for the same purpose. For unit
# vectors it is a function of the mean of **a**; so it should be blind to how the inner products are spread.
# Show it: build two sets $A$ and $B$ of $N$ unit vectors with *equal* diversity, where $A$ has confusion 0
# and $B$ at least $\tfrac12$. Any two sets that do so for every $N\ge4$ are right. About 6 lines.


# %% tags=["exercise-5.2b"]
def two_sets(N):
    """Two sets of unit vectors of equal gradient diversity, of which only B is confused.

    N >= 4, a whole number.
    Returns A (N, P) and B (N, Q), float64, one unit vector a row; P and Q are yours to choose.
    """
    raise NotImplementedError


with attempt("5.2b"):
    A, B = two_sets(6)
    assert math.isclose(float(A.sum(dim=0).norm()), float(B.sum(dim=0).norm()))
    assert float((B @ B.T).min()) <= -0.5


# %% jupyter={"source_hidden": true} tags=["solution-5.2b"]
def solution_two_sets(N):
    A = torch.eye(N, dtype=torch.float64)  # ‖Σa‖² = N
    B = torch.zeros(N, N, dtype=torch.float64)
    B[0, 0], B[1, 0] = 1, -1  # opposed; they add nothing to the sum
    shared = 2 / ((N - 2) * (N - 3))  # inner product of the others: N − 2 + (N − 2)(N − 3) shared = N
    B[2:, 1], B[2:, 2:] = math.sqrt(shared), math.sqrt(1 - shared) * torch.eye(N - 2, dtype=torch.float64)
    return A, B


# %% jupyter={"source_hidden": true} tags=["tests-5.2b", "points-2"]
def check_two_sets(two_sets):
    generator = torch.Generator().manual_seed(522)
    for N in [4, 5, 6, 7, *torch.randint(8, 200, (6,), generator=generator).tolist()]:
        squares = []
        for name, vectors in zip("AB", two_sets(N), strict=True):
            assert isinstance(vectors, torch.Tensor), f"N = {N}: {name} should be a tensor"
            same(f"N = {N}: rows of {name}", len(vectors), N)
            same(f"N = {N}: norms in {name}", vectors.norm(dim=1), torch.ones(N, dtype=torch.float64))
            squares.append(float(sum(vectors).square().sum()) / N)  # one over the diversity
            off = ~torch.eye(N, dtype=torch.bool)
            eta = max(0.0, -float((vectors @ vectors.T)[off].min()))
            allowed = eta <= 1e-9 if name == "A" else eta >= 0.5 - 1e-9
            should = "have none" if name == "A" else "have 1/2 or more"
            assert allowed, f"N = {N}: {name} has confusion {eta:.4g}, and should {should}"
        same(f"N = {N}: ‖Σb‖²/Σ‖b‖², against that of A", squares[1], squares[0])


grade("5.2b", check_two_sets, solution=solution_two_sets, answer=two_sets)

# %% [markdown]
# **Then.** Does it matter? Let $f_i(w)=\frac12(\langle g_i,w\rangle-1)^2$ with the 20 vectors of $A$, then of
# $B$; start at $w=0$ and draw one sample a step. At the start both sets have the same diversity and the same
# mean inner product, 0. On orthogonal data $\mathbb E F_t=F_0\,(1-(2\alpha-\alpha^2)/N)^t$ is exact; in $B$
# the two opposed vectors push their coordinate to and fro, and $\alpha/((2-\alpha)N)$ is left in the end.

# %% tags=["then-5.2"]
N, alpha, T, marks, generator = 20, 0.5, 200, [], torch.Generator().manual_seed(0)
steps = np.arange(T + 1)
expected = [(1 - (2 * alpha - alpha**2) / N) ** steps / 2,
            np.full(T + 1, alpha / ((2 - alpha) * N))]
for color, G in enumerate(solution_two_sets(N)):
    # outputs at the minimum
    best = G @ torch.linalg.pinv(G) @ torch.ones(N, dtype=torch.float64)
    # 5 seeds, 40 runs in each
    w, gaps = torch.zeros(5, 40, N, dtype=torch.float64), np.empty((5, T + 1))
    for t in steps:
        gaps[:, t] = ((w @ G.T - 1).square() - (best - 1).square()).mean(dim=(1, 2)) / 2
        g = G[torch.randint(N, (5, 40), generator=generator)]
        w = w - alpha * ((w * g).sum(dim=2, keepdim=True) - 1) * g
    marks += [Measured(steps, gaps, "AB"[color], color),
              Predicted(steps, expected[color], "", color)]
panel = Panel("F − F* under SGD", marks, "step", "", yscale="log")
says = "Distance of SGD from the least loss, for several batch sizes."
Chart(panel, f"{says}\nN 20 · α 0.5 · 5 seeds of 40 runs · dashed: expected, for B in the end")

# %% [markdown]
# Equal diversity, and equal speed while all gradients are long. Then $B$ is stuck: its two opposed
# gradients are still long at the minimum. Confusion sees it from the start on, diversity at the start does
# not. (Thm 3.1 does not cover this run: its steps would have to be below $2/(NL)=.1$.)

# %% [markdown]
# ### 5.3 A bound, step by step (4 points)
#
# Let every $f_i$ be $L$-smooth with PL constant $\mu$, and let $\eta_t$ be the confusion at step $t$. The
# proof of Thm 3.1 gives one inequality a step, and with it $\mathbb E[F_t-F^*]\le b_t$ for
#
# $$b_0=F_0-F^*,\qquad b_{t+1}=\rho\,b_t+\alpha\,\eta_t,\qquad
# \rho=1-\frac{2\mu}{N}\Big(\alpha-\frac{NL\alpha^2}{2}\Big),\qquad 0<\alpha<\frac{2}{NL}.$$
#
# The theorem then puts the worst $\eta$ into every step; you need not. Outside the range of $\alpha$ raise a
# `ValueError` that names `alpha`. About 7 lines.


# %% tags=["exercise-5.3"]
def sgd_bound(gap0, etas, L, mu, N, alpha):
    """The bound of Thm 3.1 as a recursion along the path.

    gap0: float, F - F* at the start; etas (T,): one number a step, of either sign; L, mu,
    alpha: floats;
    N: whole number.
    Returns a float64 tensor (T + 1,): b_0, ..., b_T. ValueError unless 0 < alpha < 2 / (N L).
    """
    raise NotImplementedError


with attempt("5.3"):
    etas = torch.tensor([0.2, 0.0], dtype=torch.float64)
    expected = torch.tensor([1, 0.85, 0.6375], dtype=torch.float64)
    assert torch.allclose(sgd_bound(1.0, etas, L=1.0, mu=1.0, N=2, alpha=0.5), expected)


# %% jupyter={"source_hidden": true} tags=["solution-5.3"]
def solution_sgd_bound(gap0, etas, L, mu, N, alpha):
    if not 0 < alpha < 2 / (N * L):
        raise ValueError(f"alpha must be above 0 and below 2/(N L) = {2 / (N * L):.4g}, got {alpha}")
    rho = 1 - 2 * mu / N * (alpha - N * L * alpha**2 / 2)
    bounds = [float(gap0)]
    for eta in etas.tolist():
        bounds.append(rho * bounds[-1] + alpha * eta)
    return torch.tensor(bounds, dtype=torch.float64)


# %% jupyter={"source_hidden": true} tags=["tests-5.3"]
def check_sgd_bound(sgd_bound):
    generator = torch.Generator().manual_seed(53)

    def compare(what, gap0, etas, L, mu, N, alpha, expected):
        etas = torch.as_tensor(etas, dtype=torch.float64)
        try:
            with unchanged(etas=etas):
                found = sgd_bound(gap0, etas, L, mu, N, alpha)
        except ValueError:
            raise AssertionError(f"{what}: a ValueError, though alpha is below 2/(NL)") from None
        same(what, found, torch.as_tensor(expected, dtype=torch.float64))

    for N in (2, 1, 7, 50):
        gap0, L, share, eta = (0.2 + 2 * torch.rand(4, generator=generator, dtype=torch.float64)).tolist()
        mu = L * share / 3
        for speed in (1.0, 0.5, 1e-3, 1.9, 1.999):  # N L alpha, below 2
            alpha, what = speed / (N * L), f"N = {N}, NLα = {speed}"
            rho = 1 - 2 * mu * alpha / N + mu * L * alpha**2
            T = int(torch.randint(2, 40, (1,), generator=generator))
            powers = rho ** np.arange(T + 1)
            compare(f"T = 0, {what}", gap0, [], L, mu, N, alpha, [gap0])
            compare(f"η = 0, {what}", gap0, [0.0] * T, L, mu, N, alpha, gap0 * powers)
            constant = gap0 * powers + alpha * eta * (1 - powers) / (1 - rho)
            compare(f"one η for all steps, {what}", gap0, [eta] * T, L, mu, N, alpha, constant)
            # Each step's term, shrunk by the steps after it.
            etas = torch.rand(T, generator=generator, dtype=torch.float64).tolist()
            terms = [sum(rho ** (t - 1 - s) * etas[s] for s in range(t)) for t in range(T + 1)]
            for sign, kind in ((1, "η_t that vary"), (-1, "negative η_t")):
                expected = gap0 * powers + sign * alpha * np.array(terms)
                compare(f"{kind}, {what}", gap0, [sign * eta for eta in etas], L, mu, N, alpha, expected)
    # In the long run N eta / (2 mu (1 - N L alpha / 2)), which stays above 0 however small alpha is.
    for speed in (0.25, 1.0, 1.5):
        floor = 3 * 0.3 / (2 * 0.7 * (1 - speed / 2))
        long = sgd_bound(5.0, torch.full((3000,), 0.3, dtype=torch.float64), 2.0, 0.7, 3, speed / 6)
        same(f"floor after 3000 steps, NLα = {speed}", float(long[-1]), floor)
    # Both ends of the range, in numbers that binary fractions hold exactly.
    outside = [(4, 2.0, 0.25), (4, 2.0, 0.3), (1, 0.5, 4.0), (8, 1.0, 0.5), (4, 2.0, 0.0), (4, 2.0, -0.1)]
    for T, (N, L, alpha) in [(T, case) for T in (2, 0) for case in outside]:
        what = f"alpha = {alpha}, 2/(NL) = {2 / (N * L)}, T = {T}"
        try:
            sgd_bound(1.0, torch.ones(T, dtype=torch.float64), L, 0.1, N, alpha)
        except Exception as error:
            kind = type(error).__name__
            assert isinstance(error, ValueError), f"{what}: raises {kind}, should raise ValueError"
            assert "alpha" in str(error), f"{what}: the ValueError does not name alpha"
        else:
            raise AssertionError(f"{what}: no ValueError")


grade("5.3", check_sgd_bound, solution=solution_sgd_bound, answer=sgd_bound)

# %% [markdown]
# **Then.** Three bounds over one problem: least squares on 20 unit vectors in 24 dimensions, so that
# $L=\mu=1$ and $F^*=0$; one sample a step, $\alpha=1/(NL)$, eight runs. For $\eta_t$ take the worst pair; or
# $-\frac{N-1}N$ times the mean of 5.2, which is all that the proof uses; or 0. Which bounds are valid, and
# which is useful?

# %% tags=["then-5.3"]
N, d, T, generator = 20, 24, 2000, torch.Generator().manual_seed(0)
X, y = (torch.randn(N, k, generator=generator, dtype=torch.float64) for k in (d, 1))
X, alpha = torch.nn.functional.normalize(X), 1 / N
gaps, etas = np.empty((4, T)), np.zeros((3, 4, T))
for run in range(4):
    w, chosen = torch.zeros(d, 1, dtype=torch.float64), torch.randint(N, (T,),
                                                                      generator=generator)
    for t, i in enumerate(chosen.tolist()):
        G = (X @ w - y) * X
        gaps[run, t] = G.square().sum() / (2 * N)  # F: the inputs have norm 1
        etas[:2, run, t] = solution_confusion(G)[0], -(N - 1) / N * solution_mean_inner(G)
        w = w - alpha * G[i, :, None]
# the recursion is linear: so is its expectation
means = [torch.tensor(eta.mean(axis=0)) for eta in etas]
bounds = [solution_sgd_bound(gaps[0, 0], eta, 1.0, 1.0, N, alpha)[:-1] for eta in means]
names = ("worst pair", "mean", "η = 0")
marks = [Predicted(range(T), b, name, i + 1)
         for i, (b, name) in enumerate(zip(bounds, names, strict=True))]
marks.append(Measured(range(T), gaps, "F − F*", 0))
panel = Panel("Thm 3.1, step by step", marks, "step", yscale="log")
says = "Loss of SGD, and the bounds of the theorem at each step."
Chart(panel, f"{says}\nN 20 · d 24 · α 1/(NL) · 4 runs")

# %% [markdown]
# The worst pair is valid and says nothing: after 2000 steps its bound is above its start, and some fifty
# times above the run. Only one pair in 190 is as bad as that, and each step pays as if all were. The mean is
# valid as well, and within a factor of about two. With $\eta=0$ the "bound" crosses the run before step 1000
# and is false from there on: these gradients *are* confused, a little, and that little slows the end of the
# run.

# %% [markdown]
# ### 5.4 Gram matrix without gradients (4 points)
#
# A tanh network without biases, $h_k=\tanh(W_kh_{k-1})$ with $h_0=x$ and a linear last layer $f=W_dh_{d-1}$,
# with the loss $\frac12\|f(x)-y\|^2$. The gradient of a sample with respect to $W_k$ is the outer product
# $\delta_kh_{k-1}^\top$, where
#
# $$\delta_d=f-y,\qquad \delta_k=\big(W_{k+1}^\top\delta_{k+1}\big)\circ\tanh'(W_kh_{k-1}),\qquad
# \tanh'(z)=1-\tanh^2z,$$
#
# and the inner product of two outer products is a product of two inner products. With one sample a row in
# $\Delta_k$ and $H_k$, all of them are $\sum_k(\Delta_k\Delta_k^\top)\circ(H_{k-1}H_{k-1}^\top)$, and no
# gradient is ever formed: with 30 layers of 300 units 100 of them would fill 2 GB. About 8 lines.


# %% tags=["exercise-5.4"]
def gradient_gram(Ws, X, Y):
    """Inner products of the gradients of all samples, without the gradients.

    Ws: list of d matrices (n_k, n_(k-1)), the last layer linear, tanh after all others; no
    biases.
    X (N, n_0), Y (N, n_d). The loss of one sample is ||f(x) - y||^2 / 2.
    Returns (N, N).
    """
    raise NotImplementedError


with attempt("5.4"):
    W, X, Y = [[1.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]], [[0.0], [1.0]]
    W, X, Y = (torch.tensor(values, dtype=torch.float64) for values in (W, X, Y))
    assert torch.allclose(gradient_gram([W], X, Y),
                          torch.tensor([[1, 0], [0, 4]], dtype=torch.float64))


# %% jupyter={"source_hidden": true} tags=["solution-5.4"]
def solution_gradient_gram(Ws, X, Y):
    h = [X]  # h[k] goes into layer k
    for W in Ws[:-1]:
        h.append((h[-1] @ W.T).tanh())
    delta = h[-1] @ Ws[-1].T - Y
    gram = (delta @ delta.T) * (h[-1] @ h[-1].T)
    for k in range(len(Ws) - 1, 0, -1):
        delta = (delta @ Ws[k]) * (1 - h[k].square())
        gram = gram + (delta @ delta.T) * (h[k - 1] @ h[k - 1].T)
    return gram


# %% jupyter={"source_hidden": true} tags=["tests-5.4"]
def check_gradient_gram(gradient_gram):
    generator = torch.Generator().manual_seed(54)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def loss(Ws, x, y):
        *hidden, last = Ws
        for W in hidden:
            x = torch.tanh(W @ x)
        return 0.5 * ((last @ x - y) ** 2).sum()

    # One layer, one unit, one sample, four hidden layers, and layers that could not be taken for others.
    sizes = [([3, 2], 5), ([4, 1], 1), ([4, 1, 1, 2], 6), ([3, 5, 2], 1), ([5, 6, 4, 3, 7, 2], 8)]
    for d in (2, 3, 5):
        sizes.append((torch.randint(1, 9, (d + 1,), generator=generator).tolist(), 3 + d))
    sizes.append(([6] * 5, 6))  # squares only: a transposed matrix would fit
    for dims, N in sizes:
        Ws = [0.8 * draw(rows, columns) for columns, rows in pairwise(dims)]
        X, Y = draw(N, dims[0]), draw(N, dims[-1])
        with unchanged(Ws=Ws, X=X, Y=Y):
            found = gradient_gram(Ws, X, Y)
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(Ws, X, Y)
        G = torch.cat([part.flatten(start_dim=1) for part in gradients], dim=1)
        same(f"layers {dims}, N = {N}", found, G @ G.T)


grade("5.4", check_gradient_gram, solution=solution_gradient_gram, answer=gradient_gram)

# %% [markdown]
# **Then.** The smallest of 4950 cosines of an untrained network on 100 digits, by width at 30 hidden layers
# and by depth at width 100; Glorot, five seeds. Compare at one number of pairs only.

# %% tags=["then-5.4"]
digits = labkit.load("digits", n_train=100, flatten=True, dtype=torch.float64)
targets, panels = labkit.one_hot(digits.y_train, 10, torch.float64), []
nets = {"width": [(H, 30) for H in (10, 30, 100, 300)],
        "hidden layers": [(100, d) for d in (3, 10, 30, 60)]}
for color, (name, sizes) in enumerate(nets.items()):
    lowest = np.empty((5, 4))
    for seed, i in np.ndindex(5, 4):
        generator, (H, depth) = torch.Generator().manual_seed(seed), sizes[i]
        Ws = [
            torch.randn(b, a, generator=generator, dtype=torch.float64) * math.sqrt(2 / (a + b))
            for a, b in pairwise([64, *[H] * depth, 10])
        ]
        gram = solution_gradient_gram(Ws, digits.x_train, targets)
        norms = gram.diagonal().sqrt()
        lowest[seed, i] = (gram / norms / norms[:, None]).min()  # the diagonal is 1
    places = [size[color] for size in sizes]
    ticks = [(place, str(place)) for place in places]
    marks = [Points(places, lowest, "", color)]
    panels.append(Panel("Smallest cosine", marks, name, "", "log", ylim=(-1, 0), xticks=ticks))
says = "The smallest cosine of two gradients, by width and by depth."
Chart(panels,
      f"{says}\n100 digits · tanh · Glorot · left 30 hidden layers, right width 100 · seeds "
      f"0–4")

# %% [markdown]
# Wider is less opposed, and deeper is more, in the mean over seeds; a single seed may say otherwise, since
# the smallest of 4950 numbers is a noisy thing. The largest network costs one pass forward, one back and two
# small products a layer; its 100 gradients of 2.6 million numbers each are never there.

# %% [markdown]
# ### 5.5 Predict, then slide (2 points)
#
# Fill in `prediction` **before** you touch a slider. Then fill in `observed`, in the panels below:
#
# - in the first, depth 30 at initialisation: width 10 → 300; then samples 25 → 400 with the same seeds, where
#   each set contains the one before;
# - in the second, *step size × nL* from 1 to .5: with $N=100$ and $L=1$, $\alpha$ halved from .01.
#
# One point for both dicts filled with allowed values, one for the items marked *provable*. The *open* items
# are never marked: there, only a reason can be right.

# %% tags=["exercise-5.5"]
prediction = {
    # provable: can the smallest cosine rise from 25 to 400 nested samples? "yes" or "no"
    "can rise": None,
    "floor": None,  # provable: factor of the floor of Thm 3.1 when α is halved from 1/(NL)
    # open: width 10 → 300, the smallest cosine "rises", "stays" or "falls"
    "cosine with width": None,
    "η with width": None,  # open: the same for η
}
observed = dict.fromkeys(prediction)  # fill in afterwards: observed["floor"] = ...

# %%
labkit.Panel(labkit.drain(lab.NETWORKS, lab.NETWORKS.preset("start")))

# %%
labkit.Panel(rate)

# %% jupyter={"source_hidden": true} tags=["tests-5.5"]
allowed = {
    "can rise": ("yes", "no"),
    "floor": (0.0, 10.0),
    "cosine with width": ("rises", "stays", "falls"),
    "η with width": ("rises", "stays", "falls"),
}
# All pairs of the 25 samples are among those of the 400, and N eta / (2 mu (1 - N L alpha / 2)) is the floor.
floors = [1 / (1 - 100 * alpha / 2) for alpha in (0.01, 0.005)]
provable = {"can rise": "no", "floor": floors[1] / floors[0]}
check_prediction(prediction, observed, allowed, provable, name="5.5")

# %% [markdown]
# ### 5.6 Advise (open, 3 points)
#
# A friend's tanh network of 60 layers does not train. "*But its confusion is only $10^{-9}$, so confusion is
# not the problem.*" What do you answer, and what should your friend measure and try? Ten sentences at most.

# %% [markdown] tags=["exercise-5.6"]
# *Your answer.*

# %% [markdown] tags=["solution-5.6"]
# <details><summary>Rubric, one point a line, and an answer</summary>
#
# 1. Asks for the cosines and for the norms of the gradients, and explains the scale.
# 2. Says which of width, skip connections and normalisation to try, and what the cosines should then do.
# 3. Names one thing that confusion at initialisation cannot tell about the end of training.
#
# *An answer.* $\eta$ has the unit of a squared gradient: between gradients of norm $3\cdot10^{-5}$, $10^{-9}$
# is as opposed as two vectors can be; between gradients of norm 1 it is nothing. So print two more things,
# over a fixed number of pairs: the norms of the gradients, and their cosines, the smallest and the spread. If
# sixty layers have shrunk the norms, the scale of the initialisation comes first: such gradients move no
# weight, confused or not. If the smallest cosine is near $-.7$, as in our networks of that depth, the
# gradients *are* confused. I would try skip connections first, then batch norm: the smallest cosine should
# come up towards 0, the cosines should crowd together, and both should stay so at twice the depth. A wider
# network should help the cosines as well, though its $\eta$ may *grow*. What none of this tells is how
# training ends: a collapsed network whose gradients all point one way has cosines near 1 and no confusion,
# and has learned nothing; so show the loss beside the cosines.
# </details>
