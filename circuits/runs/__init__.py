"""Long runs: shards that are computed once, by one process or many, and kept until the run is at its end."""

from circuits.runs.beside import kept_beside
from circuits.runs.runner import Aside, Course, ShardError, run_on, shards, steps

__all__ = ["Aside", "Course", "ShardError", "kept_beside", "run_on", "shards", "steps"]
