"""`make demo`: plays a real video through the node and shows the results."""
