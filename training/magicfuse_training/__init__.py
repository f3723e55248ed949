"""Training of MagicFuse bundles: networks, diffusion, data, stages, scores and export."""

import magicfuse_ros  # noqa: F401  # first: keeps the libraries from reporting their use
