"""Timing of the pipeline: every combination in a process of its own, all of them in turn."""
