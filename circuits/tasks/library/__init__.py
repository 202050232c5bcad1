"""The tasks, one file a behaviour."""
