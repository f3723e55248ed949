"""MagicFuse for ROS 2: one visible camera in, a fused image and a segmentation map out."""

import magicfuse_ros.privacy  # noqa: F401  # first: libraries read its settings on import

__version__ = "0.1.0"
