"""Fuses recorded drives again and compares the results with those of an earlier run."""
