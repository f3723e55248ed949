"""The error of data that a user can mend."""

from magicfuse_ros.errors import MagicFuseError


class DataError(MagicFuseError):
    """A data set that is not where or what it should be; the message names the file."""
