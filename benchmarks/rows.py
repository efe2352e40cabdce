"""All rows, in the order of the table."""

from benchmarks import kernels, landscape, loops, waits

ROWS = (*kernels.ROWS, *landscape.ROWS, *loops.ROWS, *waits.ROWS)
