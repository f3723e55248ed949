"""The nodes; only this folder and playback/ import rclpy."""
