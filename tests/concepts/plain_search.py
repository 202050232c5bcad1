"""The search for logical forms one formula at a time, as published code does it: masks and IoU in numpy."""

import numpy as np

OPS = ("AND", "OR", "AND NOT")
Key = tuple[tuple[str, int], ...]


def joined(mask: np.ndarray, op: str, concept: np.ndarray) -> np.ndarray:
    if op == "AND":
        return np.logical_and(mask, concept)
    return np.logical_or(mask, concept) if op == "OR" else np.logical_and(mask, np.logical_not(concept))


def iou(mask: np.ndarray, neuron: np.ndarray) -> float:
    union = np.count_nonzero(np.logical_or(mask, neuron))
    return np.count_nonzero(np.logical_and(mask, neuron)) / union if union else 0.0


def rank(item: tuple[Key, float]) -> tuple:
    """Best first: score, length, then concepts from the first on, AND before OR before AND NOT."""
    key, score = item
    return (-score, len(key), [(OPS.index(op), concept) if op else (0, concept) for op, concept in key])


def kept(found: dict[Key, float], masks: dict[Key, np.ndarray], beam: int) -> dict[Key, float]:
    """The best forms that hold at different tokens."""
    seen, best = set(), {}
    for key, score in sorted(found.items(), key=rank):
        mark = masks[key].tobytes()
        if mark not in seen and len(best) < beam:
            seen.add(mark)
            best[key] = score
    return best


def plain_search(neuron: np.ndarray, concepts: np.ndarray, *, length: int = 5, beam: int = 10, penalty: float = 0.99):
    """The best form (its first concept, then joins and concepts) and its IoU. Forms of an earlier step are not joined anew,
    which published code does and which finds nothing new."""
    masks: dict[Key, np.ndarray] = {(("", place),): concept for place, concept in enumerate(concepts)}
    best = kept({key: iou(mask, neuron) for key, mask in masks.items()}, masks, beam)
    for step in range(1, length):
        found, held = dict(best), {key: masks[key] for key in best}
        for form in [key for key in best if len(key) == step]:
            for op in OPS:
                for place, concept in enumerate(concepts):
                    key = (*form, (op, place))
                    mask = joined(masks[form], op, concept)
                    score = iou(mask, neuron) * penalty**step
                    if len(best) < beam or score >= min(best.values()):  # others cannot be kept
                        held[key], found[key] = mask, score
        best, masks = kept(found, held, beam), held
    form = next(iter(best))
    return form, iou(masks[form], neuron)
