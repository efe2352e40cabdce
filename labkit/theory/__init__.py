"""What the papers predict: pure NumPy and SciPy, float64 in and out, no torch.

``kernels`` is shared by the papers; ``jacobian`` and ``linear_model`` belong to paper 4. A module starts
with a table from equation to function to claim, followed by the errata.
"""

from labkit.theory.kernels import analytic_ntk, mntk, mntk_full

__all__ = ["analytic_ntk", "mntk", "mntk_full"]
