"""What a fork finds loaded: the forkserver of `watch` imports this once, and computes nothing.

So a fork inherits no threads, and needs no time for what most exercises import.
"""

import matplotlib.figure  # noqa: F401
import psutil  # noqa: F401
import torch

import labkit.figures  # noqa: F401
from labkit.classroom.grading import sides  # noqa: F401
from labkit.classroom.grading.limits import adopt_orphans, walls
from labkit.classroom.grading.shell import Shell

torch.set_num_threads(1)
Shell.instance()
walls()  # Finds the packages and libraries that a fork encloses itself with.
adopt_orphans()
