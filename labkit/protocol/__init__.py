"""What an experiment and a claim are: settings, experiments, rules, claims, verdicts, replication."""
