"""Paper 4, the low-rank Jacobian: its formulas, by equation and claim.

    equation                function                                                              claim
    Def. 2.1                kernels.mntk, kernels.mntk_full                                       J1, J2
    Lemma 6.13              kernel_deviation_bound, kernel_width                                  J1
    Thm A.1                 mixture_rank, mixture_eigenvalue_interval,                            J2, J3
                            mixture_interval_probability, cluster_basis
    Lemma A.2               mixture_perturbation, mixture_subspace_bound                          J3
    Thms 2.5, A.3           mixture_cutoff, mixture_steps, mixture_width, mixture_error_rate      J2, J3
    (5.11), (6.5)           linearized_residual, linearized_residual_from_svd, residual_parts     J4, J5
    (6.6), (6.9), (6.10)    linear_distance_bound, linear_residual_bound                          J4
    (6.11)                  tracking_bound                                                        J5, J6
    Def. 5.1                reference_error                                                       J6
    Defs. 1.1, 5.2          information_rank                                                      J4, J7
    (5.12), (5.15)          radius, distance_bound                                                J6
    (5.13)                  meta_theorem_regime, smallest_delta, smallest_delta_lipschitz         J6
    (5.14)                  meta_theorem_bound (residuals), parameter_bound                       J6
    (5.16)                  final_residual_bound, stopping_time, learning_duration                J6
    (6.1); (6.2), (6.3)     early_stopping_value; early_stopping_bounds                           J7
    Thm 2.2 (2.2), (2.3)    tradeoff, best_cutoff, relative_cutoff, training_loss_bound,          J8
                            width_condition; full_rank_width for (2.4)
    Thms 6.24, 6.25         generalization_bound_random, width_random, output_scale (6.67)        J8
    Thms 2.3, 6.21, 6.22    tradeoff(start="given"), generalization_bound_given, width_given      J9
    section 5.1             linear_model.gd_iterates, linear_model.population_risk                J10
    tables 1-18             pinv_norm, chance_share, one_hot_chance_share                         J11
    App. D                  adaptation_rank, adaptation_tail, adaptation_gradient                 J15
    (6.27), (B.2)           input_jacobian, output_jacobian, joint_jacobian                       J16
    (6.31), (6.32)          jacobian_norm_bound, jacobian_row_bound                               J16
    Lemma 6.10              jacobian_lipschitz                                                    J6, J16
    Thm B.1                 joint_jacobian_bound, joint_entry_bound, joint_jacobian_lipschitz     J16

Names: the loss is 1/2 |f - y|^2, ``lr`` is the paper's eta, ``alpha`` a spectrum cutoff, ``Gamma`` a
duration. Layout: row i*K + k is output k of sample i; the paper stacks class by class. A bound returns a
number, a regime returns pairs.

Errata, each repeated where it matters:
    section 2.3   the eigenvalues grow as n/KC, the singular values as its root; Fig. 3 means the top K^2 C
    Def. 2.1      an output variance of nu^2/k (width), not nu^2/K
    Def. 5.1      |J_0 J_0^T - J J^T| <= eps0^2; Thm 5.3 takes an (eps0, beta) reference
    Def. 5.2      r(alpha) is the largest index with lambda_s >= alpha
    Assumption 2  |J(theta) - J(theta_0)| <= eps/2, as the proofs of Lemmas 6.7 and 6.19 use it
    Thm 5.3       the proof of (5.14) loses sqrt(1 + 1/Gamma^2) and has the room for it
    Lemma 6.2     its last inequality needs Gamma >= 1
    Thm 6.25      10 sqrt(log(2/delta)/n) may be 5, as in Thm 6.24
    Thm A.1       the last bullet has Sigma(M)
    Thm B.1       the spectral and the entry bound need phi(0) = 0, or a term for it
    App. D        the residual is about -y; smoothness of phi' is not needed in practice
"""

from labkit.theory.alignment import (
    adaptation_gradient,
    adaptation_gradient_deviation,
    adaptation_rank,
    adaptation_tail,
    chance_share,
    one_hot_chance_share,
)
from labkit.theory.meta_theorem import (
    distance_bound,
    final_residual_bound,
    learning_duration,
    meta_theorem_bound,
    meta_theorem_regime,
    parameter_bound,
    radius,
    reference_error,
    smallest_delta,
    smallest_delta_lipschitz,
    stopping_time,
    tracking_bound,
)
from labkit.theory.mixture import (
    cluster_basis,
    mixture_cutoff,
    mixture_eigenvalue_interval,
    mixture_error_rate,
    mixture_interval_probability,
    mixture_perturbation,
    mixture_rank,
    mixture_steps,
    mixture_subspace_bound,
    mixture_width,
)
from labkit.theory.network_bounds import (
    input_jacobian,
    jacobian_lipschitz,
    jacobian_norm_bound,
    jacobian_row_bound,
    joint_entry_bound,
    joint_jacobian,
    joint_jacobian_bound,
    joint_jacobian_lipschitz,
    kernel_deviation_bound,
    kernel_width,
    output_jacobian,
    output_scale,
)
from labkit.theory.residuals import (
    EarlyStoppingBounds,
    ResidualParts,
    decay,
    early_stopping_bounds,
    early_stopping_value,
    information_rank,
    linear_distance_bound,
    linear_residual_bound,
    linearized_residual,
    linearized_residual_from_svd,
    pinv_norm,
    progress,
    residual_parts,
)
from labkit.theory.tradeoff import (
    GeneralizationBound,
    Tradeoff,
    best_cutoff,
    full_rank_width,
    generalization_bound_given,
    generalization_bound_random,
    relative_cutoff,
    tradeoff,
    training_loss_bound,
    width_condition,
    width_given,
    width_random,
)

__all__ = [
    "EarlyStoppingBounds",
    "GeneralizationBound",
    "ResidualParts",
    "Tradeoff",
    "adaptation_gradient",
    "adaptation_gradient_deviation",
    "adaptation_rank",
    "adaptation_tail",
    "best_cutoff",
    "chance_share",
    "cluster_basis",
    "decay",
    "distance_bound",
    "early_stopping_bounds",
    "early_stopping_value",
    "final_residual_bound",
    "full_rank_width",
    "generalization_bound_given",
    "generalization_bound_random",
    "information_rank",
    "input_jacobian",
    "jacobian_lipschitz",
    "jacobian_norm_bound",
    "jacobian_row_bound",
    "joint_entry_bound",
    "joint_jacobian",
    "joint_jacobian_bound",
    "joint_jacobian_lipschitz",
    "kernel_deviation_bound",
    "kernel_width",
    "learning_duration",
    "linear_distance_bound",
    "linear_residual_bound",
    "linearized_residual",
    "linearized_residual_from_svd",
    "meta_theorem_bound",
    "meta_theorem_regime",
    "mixture_cutoff",
    "mixture_eigenvalue_interval",
    "mixture_error_rate",
    "mixture_interval_probability",
    "mixture_perturbation",
    "mixture_rank",
    "mixture_steps",
    "mixture_subspace_bound",
    "mixture_width",
    "one_hot_chance_share",
    "output_jacobian",
    "output_scale",
    "parameter_bound",
    "pinv_norm",
    "progress",
    "radius",
    "reference_error",
    "relative_cutoff",
    "residual_parts",
    "smallest_delta",
    "smallest_delta_lipschitz",
    "stopping_time",
    "tracking_bound",
    "tradeoff",
    "training_loss_bound",
    "width_condition",
    "width_given",
    "width_random",
]
