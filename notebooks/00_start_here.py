# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does theory know of a network before it is trained?
#
# Five papers, five ways to look at one network: how far it travels, how large it grows, how flat it ends, in
# which directions it learns fast, and how its gradients quarrel. Here you see each in one picture, then all
# five at once under your hand, and learn to read a verdict that could have gone the other way.
#
# *Run all takes under a minute on one core. Dashed is predicted, solid is measured, grey is an earlier run.
# Measured lines are means over seeds, in a band from the lowest to the highest.*

# %%
import labkit
import numpy as np
from IPython.display import Image
from labkit import measure
from labkit.figures import Chart, Measured, Panel, Points, Predicted
from labkit.training.stopping import LossBelow

# %% [markdown]
# ## 1 · Five questions, one picture each
#
# All on small images of digits. To *fit* is to train three seeds side by side until their loss is below 0.05.


# %%
def digits(n, noise=0.0):
    """n images; with noise 1 all labels are drawn anew."""
    how = {"normalize": "standardize+unit-length", "noise_kind": "redraw", "flatten": True}
    return labkit.load("digits", n_train=n, label_noise=noise, **how)


def fit(width, data):
    nets = [labkit.mlp(64, width, 2, 10, bias=False, seed=s) for s in range(3)]
    ensemble = labkit.Ensemble(nets)
    x, y, stop = 8 * data.x_train, data.y_train, LossBelow(0.05)
    list(labkit.train(ensemble, x, y, loss="cross-entropy", lr=0.1, steps=2000, stop=stop))
    return nets, [ensemble.member(s) for s in range(3)]


# %%
def picture(says, title, marks, xlabel, ylabel, **axes):
    """A small figure; its caption says what is shown, to those who cannot see it as well."""
    chart = Chart(Panel(title, marks, xlabel, ylabel, **axes), says)
    return Image(chart.png(560, 300, dpi=200), width=560, alt=chart.words)


# %% [markdown]
# **1. Distance.** A wider network has more weights. Does it have to go further to learn the same images?

# %%
widths = [16, 32, 64, 128, 256]
ends = np.empty((2, 3, len(widths)))
for place, width in enumerate(widths):
    for s, (start, end) in enumerate(zip(*fit(width, digits(200)), strict=True)):
        found = measure.distances(end, start)
        ends[:, s, place] = found.from_start, found.from_origin
marks = [Points(widths, ends[0], "from the start", 2),
         Points(widths, ends[1], "from the origin", 3)]
says = "How far networks of five widths went to fit 200 digits, and how far from zero they end."
picture(says, "Distance of the trained weights", marks, "hidden units", "norm", xscale="log2",
        ylim=(0, None))

# %% [markdown]
# No: the wider, the *less* it travels, while its distance from the origin only grows. Complexity should be
# measured from the start. → [Notebook 1](01_distance_from_initialization.ipynb)
#
# **2. Norms and margins.** A network fits random labels as perfectly as true ones. Which number, read off
# network and training set alone, tells the two apart?

# %%
sizes, marks = [50, 100, 200, 400], []
for noise, label in enumerate(("true labels", "random labels")):
    ratio = np.empty((3, len(sizes)))
    for place, n in enumerate(sizes):
        data = digits(n, noise)
        for s, net in enumerate(fit(64, data)[1]):
            gap = measure.margin(net(8 * data.x_train).detach(), data.y_train)
            ratio[s, place] = measure.layer_norms(net, data.x_train).spectral.prod() / gap
    marks.append(Points(sizes, ratio, label, noise))
says = ("Product of spectral norms over the margin, for networks of 64 units that fit all "
        "labels.")
picture(says, "Norm over margin, after a perfect fit", marks, "training images", "∏‖W‖₂ / γ",
        ylim=(0, None))

# %% [markdown]
# Norm over margin grows much faster on random labels. → [Notebook 2](02_exploring_generalization.ipynb)
#
# **3. Flatness.** Of all weights that fit, which does training find? Walk away from two such minima in random
# directions.

# %%
from labkit.measure.flatness import flatness_profile

radii, marks = np.linspace(0.1, 6, 40), []
for noise, label in enumerate(("true labels", "random labels")):
    data = digits(300, noise)
    x, y = 8 * data.x_train, data.y_train
    rise = [flatness_profile(net, x, y, radii.tolist()).mean(0) for net in fit(64, data)[1]]
    marks.append(Measured(radii, np.stack(rise), label, noise))
says = ("Loss of two fitted networks, a distance away in random directions; 300 digits, 64 "
        "units.")
picture(says, "Rise of the loss around a minimum", marks, "distance walked",
        "loss − loss at the minimum")

# %% [markdown]
# Both fit every image; the minimum that has learned something lies in the wider valley.
# → [Notebook 3](03_sgd_and_flat_minima.ipynb)
#
# **4. Information space.** Before training, the Jacobian says in which directions of label space a network
# learns fast. The fastest few span the *information space* $\mathcal I$, all others the *nuisance space*
# $\mathcal N$. How much of the labels lies in the fastest of them?

# %%
data, marks, count = digits(100), [], np.arange(1, 101)
net = labkit.mlp(64, 64, 2, 10, activation="tanh", bias=False, seed=0)
top = labkit.svd(labkit.jacobian(net, 8 * data.x_train), k=100)
for noise, label in enumerate(("true labels", "random labels")):
    y = labkit.rows(labkit.one_hot(digits(100, noise).y_train, 10)) - 0.1
    share = ((top.U.T @ y) ** 2).cumsum(0) / (y @ y)
    marks.append(Measured(count, share.numpy(), label, noise))
marks.append(Predicted(count, count / 1000, "chance", 4))
says = "Share of the labels in the fastest directions of a fresh network; 100 digits, 64 units."
picture(says, "Labels in the fastest directions", marks, "directions, of 1000", "share of ‖y‖²",
        ylim=(0, 1))

# %% [markdown]
# True labels lie where learning is fast, random ones do not. → [Notebook 4](04_low_rank_jacobian.ipynb)
#
# **5. Confusion.** Each image pulls the weights its own way. Do two images pull against each other, and does
# the architecture matter?

# %%
edges, marks = np.linspace(-1, 1, 41), []
for color, width in enumerate((10, 300)):
    net = labkit.mlp(64, width, 30, 10, activation="tanh", bias=False, seed=0)
    gram = measure.gradient_gram(net, 8 * data.x_train, data.y_train)
    counts = np.histogram(measure.confusion(gram).cosines, edges, density=True)[0]
    marks.append(Measured((edges[1:] + edges[:-1]) / 2, counts, f"width {width}", color))
says = ("How often two of 100 digits pull the weights at which angle, in a narrow and a wide "
        "network.")
picture(says, "Pairs of gradients, 30 layers, untrained", marks, "cosine of the angle",
        "density")

# %% [markdown]
# In the narrow network many pairs point against each other, in the wide one hardly any.
# → [Notebook 5](05_gradient_confusion.ipynb)
#
# ## 2 · One network, five lenses
#
# Replace the network by its tangent at the start, $f_0+J_0(\theta-\theta_0)$. Gradient descent on *that* has
# a closed form, and it answers all five questions before a single step: the dashed lines below come from the
# Jacobian at the start (and one level each from the shapes of the layers alone), the solid ones from the real
# network. Let a slider go, and another network trains while you watch.
#
# **Three moves.** Press *Keep run* before each, and put the slider back after it.
#
# 1. *Width* 256 → 16. The valley gets three times as narrow, the way nearly twice as long, and both residuals
#    leave their dashed lines: a narrow network does not stay near its tangent.
# 2. *Label noise* 0 → 1. It still fits, on a longer way: the noise sits on $\mathcal N$, which is slow. The
#    test error goes near chance, as the dashed line knew. Margins ask for more norm.
# 3. *Learning rate* .9 → 2.5, in units of $1/\lambda_1^2$. Above 2 the tangent explodes, but the network
#    catches itself. At 8 it does not, and the panel says which rate would have been stable.

# %%
from labkit.labs import start as lab

run = labkit.drain(lab.LENSES)
labkit.Panel(run)

# %% [markdown]
# ## 3 · How to read a verdict
#
# A *claim* has a rule that was written before the run. It is of one of three kinds. A **theorem** is
# proved: it is checked, and can fail only by a bug or a broken assumption. A **prediction** is a number
# from a formula against a measurement that does not contain it. A **finding** is what a paper observed: it
# replicates or it does not. The same run, and its five claims, with every number by its name: what was
# predicted (for a theorem, the bound), what was measured with its spread over seeds, the rule with its
# edge, the word, and in how many blocks of other seeds the word that is expected came out.

# %%
display(labkit.judge_all(run))

# %% [markdown]
# *Holds* is one of five words. Another is *reported*: nothing is promised, here is what came out. For the
# others, change **one** setting. Where the word is not the one that the claim expects, the verdict says so:


# %%
def verdicts(*ids, **change):
    display(labkit.judge_all(labkit.drain(lab.LENSES, lab.LENSES.preset(**change)), ids))


verdicts("L4", "L5", width=16)

# %% [markdown]
# ***Fails***: L5 says that gradients come to oppose each other as far as the start said, and in a network of
# 16 units they do not. ***Out of regime***: L4 asks first whether the kernel stood still. It did not, so
# nothing was promised and nothing is refuted. A step that is too long does the same:

# %%
verdicts("L4", lr=1.5)

# %% [markdown]
# ***Undecided***: the measurement does not meet its own check, here that training has reached a minimum at
# all; or the run diverged. (Where a rule decides by an interval over seeds, an interval that lies across
# the edge leaves the claim undecided, too, and so do fewer than five seeds: notebook 4 has such a rule,
# J5.)

# %%
verdicts("L3", lr=0.05)
verdicts("L1", lr=8)

# %% [markdown]
# ***Vacuous***: the bound holds, and a simpler one says more.

# %%
verdicts("L1", width=4)

# %% [markdown]
# L1 and L2 are theorems about all networks: they can become vacuous, but they can fail only if the code is
# wrong. L3 to L5 are predictions that take the start for the end, which narrow networks refute. Every
# prediction and finding of labkit names circumstances in which it must come out otherwise, and tests run
# them.
#
# ## 4 · How to do it
#
# - **Run a notebook**: *Run → Run All Cells*. Every experiment stands in a panel once, as it was run: move a
#   slider, and it trains anew in the background, while other cells stay usable.
# - **Stop, keep, compare**: *Stop* leaves what was measured. The last run stays in grey behind the next one;
#   *Keep run* keeps it for good.
# - **Save PNG**, **SVG**, **CSV** write a file beside the notebook; in code `run.figure().save("run.png")`.
# - **Repeat a run without a notebook**: the lines under *Repeat this run*, as `labkit run 0 --set width=64`.
# - **Verdicts as JSON**: `labkit run 0 --json verdicts.json`. All claims of a paper: `--all-claims`.
# - **The code of a theorem** is in `labkit/theory/`. The modules of the papers begin with a table of
#   equations, functions and claims: `from labkit.theory import jacobian`, then `jacobian??`.
# - **Exercises** stand at the end of notebooks 1 to 5: fill in a function and run its cell. It says whether
#   its example comes out right, and the cell below says what is still wrong.
#
# **Your own data** is an `.npz` file with four arrays. Every experiment that has a `dataset` takes its path:

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 20)), rng.integers(0, 3, size=300)
x[:, :3] += 3 * np.eye(3)[y]
with TemporaryDirectory() as folder:
    mine = Path(folder) / "mine.npz"
    np.savez(mine, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    own = labkit.drain(lab.LENSES, lab.LENSES.preset(dataset=str(mine)))
own.figure()

# %% [markdown]
# And the theorem behind most of the dashed lines, as it stands in the library:

# %%
from labkit.theory.jacobian import linearized_residual

print(linearized_residual.__doc__.split("Args")[0])
