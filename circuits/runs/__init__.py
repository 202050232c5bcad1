"""Long runs: shards that are computed once, by one process or many, and kept until the run is at its end."""

from circuits.runs.runner import Aside, ShardError, run_on, shards

__all__ = ["Aside", "ShardError", "run_on", "shards"]
