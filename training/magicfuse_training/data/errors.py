"""The error for data that a user can fix."""

from magicfuse_ros.errors import MagicFuseError


class DataError(MagicFuseError):
    """A data set that is missing or invalid; the message names the file."""
