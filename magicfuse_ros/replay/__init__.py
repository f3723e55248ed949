"""Recorded drives through the fuser again, and the results compared with an earlier run's."""
