"""How fast labkit is, beside others and beside what the machine can do: `python benchmarks/run.py`."""
