"""The commands of `magicfuse-train`, one module each."""
