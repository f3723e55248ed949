"""The errors that a user can act on; every other exception is a bug of ours."""


class MagicFuseError(Exception):
    """Base of all errors that name a thing, its value and what was expected instead."""


class BundleError(MagicFuseError):
    """A bundle that cannot be trusted or read: missing file, wrong hash, unknown format."""


class BackendError(MagicFuseError):
    """An inference backend that is unknown or not installed, or that failed on a network."""


class DeviceLostError(BackendError):
    """A GPU that failed in a way that only a new process can fix."""


class FrameError(MagicFuseError):
    """An image that cannot be fused: wrong dtype, shape, encoding or length."""


class MediaError(MagicFuseError):
    """An input or output file, folder or bag that cannot be read or written."""


class EngineError(BackendError):
    """A built engine that is missing, stale or damaged, or that cannot be written."""


class CalibrationError(MagicFuseError):
    """A camera calibration or pose from which no ground point can be computed."""
