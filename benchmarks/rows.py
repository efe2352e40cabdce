"""All rows, in the order of the table."""

from benchmarks import kernels, landscape, loops

ROWS = (*kernels.ROWS, *landscape.ROWS, *loops.ROWS)
