"""Assignments: the students' version of a notebook, its release as a course for nbgrader, and its grading."""
