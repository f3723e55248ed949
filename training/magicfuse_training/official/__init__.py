"""The networks that the authors of MagicFuse released: their names, files and a parity check."""
