"""Times the pipeline: every combination runs in its own process, and the processes take turns."""
