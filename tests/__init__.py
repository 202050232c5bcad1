"""What tests of several rooms share."""

HANGS = 1800
"""Seconds after which a process that a test started is taken to hang. It ends what would never end, and says nothing of speed:
on a slow or a busy machine, or without the vector instructions of newer ones, half a minute of work can take ten. Speed is for
the benchmarks, which compare with something run beside."""
