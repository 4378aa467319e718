"""Scores, prediction files, results, tests between methods, and the report."""
