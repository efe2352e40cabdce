"""Random streams: one generator for each purpose, all decided by one seed.

Two purposes never share a stream. Were the same seed handed to every generator, the centres of a mixture and
the first weights of a network (both standard Gaussians) would be the same numbers, and so would the order of
a subset and the order in which labels are corrupted.
"""

import zlib

import numpy as np
import torch

from labkit.data._checks import whole_number


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for `purpose`: on the CPU, so that a seed means the same data on every device."""
    entropy = [whole_number("seed", seed), zlib.crc32(purpose.encode())]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(state[0]))
