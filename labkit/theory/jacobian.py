"""Paper 4, the low-rank Jacobian: its formulas, by equation and claim.

    equation                function                                                              claim
    Def. 2.1                kernels.mntk, kernels.mntk_full                                       J1, J2
    Thm A.1                 mixture_rank, mixture_eigenvalue_interval,                            J2, J3
                            mixture_interval_probability
    (5.11), (6.5)           linearized_residual, residual_parts                                   J4, J5
    (5.15)                  distance_bound                                                        J6
    (5.13)                  smallest_delta                                                        J6
    (5.14)                  meta_theorem_bound                                                    J6
    (5.16)                  final_residual_bound                                                  J6
    (6.1); (6.2), (6.3)     early_stopping_value; early_stopping_bounds                           J7
    Thm 2.2 (2.2), (2.3)    tradeoff, relative_cutoff, width_condition                            J8
    (2.4), Thm 2.5          full_rank_width                                                       J8
    Thm 2.3                 tradeoff(start="given")                                               J9
    section 5.1             linear_model.gd_iterates, linear_model.population_risk                J10
    tables 1-18             chance_share, one_hot_chance_share                                    J11
    App. D                  adaptation_rank, adaptation_tail                                      J15
    Thm B.1                 joint_jacobian_bound                                                  J16
    Thm 2.2 with (5.11)     fresh_loss                                                            J19

Names: the loss is 1/2 |f - y|^2, ``lr`` is the paper's eta, ``alpha`` a spectrum cutoff, ``Gamma`` a
duration. Layout: row i*K + k is output k of sample i; the paper stacks class by class. A bound returns a
number, a regime returns pairs.

Errata, each repeated where it matters:
    section 2.3   the eigenvalues grow as n/KC, the singular values as its root; Fig. 3 means the top K^2 C
    Def. 5.2      r(alpha) is the largest index with lambda_s >= alpha
    Thm 5.3       the proof of (5.14) loses sqrt(1 + 1/Gamma^2) and has the room for it
    Lemma 6.2     its last inequality needs Gamma >= 1
    Thm A.1       the last bullet has Sigma(M)
    Thm B.1       the spectral bound needs phi(0) = 0, or a term for it
    App. D        the residual is about -y; smoothness of phi' is not needed in practice

Our copy of the text has lost scripts and halves. Read as the proofs use them: an output variance of nu^2/k in
Def. 2.1, |J_0 J_0^T - J J^T| <= eps0^2 in Def. 5.1, an (eps0, beta) reference in Thm 5.3, eps/2 in
Assumption 2.
"""

from labkit.theory.alignment import adaptation_rank, adaptation_tail, chance_share, one_hot_chance_share
from labkit.theory.meta_theorem import (
    distance_bound,
    final_residual_bound,
    meta_theorem_bound,
    smallest_delta,
)
from labkit.theory.mixture import (
    mixture_eigenvalue_interval,
    mixture_interval_probability,
    mixture_rank,
)
from labkit.theory.network_bounds import joint_jacobian_bound
from labkit.theory.residuals import (
    EarlyStoppingBounds,
    ResidualParts,
    decay,
    early_stopping_bounds,
    early_stopping_value,
    fresh_loss,
    linearized_residual,
    progress,
    residual_parts,
)
from labkit.theory.tradeoff import Tradeoff, full_rank_width, relative_cutoff, tradeoff, width_condition

__all__ = [
    "EarlyStoppingBounds", "ResidualParts", "Tradeoff", "adaptation_rank", "adaptation_tail",
    "chance_share", "decay", "distance_bound", "early_stopping_bounds", "early_stopping_value",
    "final_residual_bound", "fresh_loss", "full_rank_width", "joint_jacobian_bound", "linearized_residual",
    "meta_theorem_bound", "mixture_eigenvalue_interval", "mixture_interval_probability", "mixture_rank",
    "one_hot_chance_share", "progress", "relative_cutoff", "residual_parts",
    "smallest_delta", "tradeoff", "width_condition",
]  # fmt: skip
