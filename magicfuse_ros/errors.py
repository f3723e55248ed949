# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

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
