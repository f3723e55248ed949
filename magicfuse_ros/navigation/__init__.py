"""Where the mask meets the ground: camera models and projection, without ROS."""
