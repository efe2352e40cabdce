"""Grading: each exercise of a submission in a process of its own, its tests in another, within limits."""
