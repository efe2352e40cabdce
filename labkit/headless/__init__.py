"""How labs are run without a person: audits, sweeps, replication, reports, what a terminal shows."""
