"""The commands of `magicfuse`, one file each."""
