"""Which GPUs a worker computes on: one of its own, where its run names a kind of device and the machine has several."""

import os


def asked_for(device: str | None, devices: str | None) -> int:
    """How many GPUs one process of a run takes, by what its options say: `cuda`, `cuda:1`; or several between commas."""
    named = {one.strip() for one in devices.split(",")} if devices else {device or "cpu"}
    return sum(one.partition(":")[0] == "cuda" for one in named)


def seen_by(worker: int, device: str | None, devices: str | None, there: int) -> dict[str, str]:
    """What a worker's environment says of GPUs, where `there` of them are seen by this process: the next one for each worker,
    round and round, the run's own process having the first. Nothing where the run names its GPUs by number."""
    if device != "cuda" or devices or there < 2:
        return {}
    listed = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    names = listed or [str(number) for number in range(there)]
    return {"CUDA_VISIBLE_DEVICES": names[worker % len(names)]}
