"""Plays recordings to a live `fuse_node` and records what it publishes. It imports rclpy."""
