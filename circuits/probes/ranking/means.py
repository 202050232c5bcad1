"""Neurons by how far apart their mean is between classes (Antverg & Belinkov 2022): no probe is trained."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.errors import CircuitsError


def class_means(
    x: Float[Tensor, "word neuron"], labels: Int[Tensor, " word"], *, classes: int
) -> Float[Tensor, "class neuron"]:
    """The mean of each class, 0 for one without words. Raises CircuitsError for labels out of range."""
    if len(labels) != len(x) or not len(x) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise CircuitsError(f"{len(labels)} labels of {len(x)} words: expected one a word, from 0 to {classes - 1}")
    sums = x.new_zeros(classes, x.shape[1]).index_add_(0, labels, x)
    return sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]


def apart_by_means(
    x: Float[Tensor, "word neuron"], labels: Int[Tensor, " word"], *, classes: int, standardised: bool = True
) -> Float[Tensor, " neuron"]:
    """Each neuron's sum, over all pairs of classes that have words, of the distance between their means.

    A sorted list makes it one pass: in it the value at place i (from 0) of k is subtracted k - 1 - i times and added i times.

    Args:
        x: activations.
        labels: the class of each word.
        classes: how many there are.
        standardised: in standard deviations of each neuron; without, a neuron of large numbers wins by its scale alone. A
            neuron that never changes has 0.
    """
    there = labels.bincount(minlength=classes) > 0
    means = class_means(x, labels, classes=classes)[there].sort(dim=0).values
    weights = 2 * torch.arange(len(means), device=x.device, dtype=x.dtype) - (len(means) - 1)
    found = weights @ means
    if not standardised:
        return found
    deviation = x.std(dim=0, correction=0)
    return torch.where(deviation > 0, found / deviation, torch.zeros_like(found))
