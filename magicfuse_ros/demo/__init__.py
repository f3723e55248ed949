"""`make demo`: a real video through the node, and what came of it."""
