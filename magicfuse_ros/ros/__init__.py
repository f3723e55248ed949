"""The nodes; the only part of the package that imports rclpy."""
