"""Training of MagicFuse bundles: networks, diffusion, data, stages, scores and export."""
