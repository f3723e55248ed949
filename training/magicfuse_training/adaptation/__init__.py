"""Adapts a bundle to one camera with unlabelled frames from that camera."""
