"""MagicFuse for ROS 2: one visible camera in, a fused image and a segmentation map out."""

__version__ = "0.1.0"
