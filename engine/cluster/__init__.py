"""Batch jobs: clips in parts, schedulers and the states of jobs."""
