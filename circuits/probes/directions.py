"""The directions that a probe reads at one place, and what is put in their place."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.probes.fitting import LinearProbe
from circuits.probes.question import Question
from circuits.probes.regression import Problem, Scale, Turned, fit_logistic
from circuits.probes.results import Probes
from circuits.probes.sites import ActivationSite


@dataclasses.dataclass(frozen=True, eq=False)
class ReadDirections:
    """What is known at one place: its mean, the directions that the probe reads and as many random ones, and each class's mean
    along the probe's."""

    place: ActivationSite
    mean: Float[Tensor, " width"]
    directions: Float[Tensor, "direction width"]
    random: Float[Tensor, "draw direction width"]
    classes: Float[Tensor, "class direction"]

    @classmethod
    def of(cls, x: Tensor, question: Question, probes: Probes, place: ActivationSite, draws: int) -> "ReadDirections":
        """From the words that the first seed's probe is trained on."""
        train, labels = question.split.train, question.labels.labels[question.split.train]
        rows, scale = x[train].float(), Scale.of(x[train])
        penalty = float(probes.penalties[probes.sites.index(place.name)]) if place.name in probes.sites else 0.01
        turned = Turned.of(scale.apply(x[train]))
        fitted = fit_logistic(turned, [Problem(labels, penalty)], classes=question.asked.classes)[0]
        directions = LinearProbe(scale, fitted, penalty).directions.float()
        generator = torch.Generator().manual_seed(place.layer)
        # Drawn as a probe's weights are fitted, where all directions spread alike: a few of a model's carry hundreds of times
        # what the others do; probes take little of those, and plain random directions much.
        drawn = torch.randn(draws, x.shape[1], len(directions), generator=generator) / scale.deviation.float()[:, None]
        random = torch.linalg.qr(drawn)[0].transpose(1, 2)
        along = rows @ directions.T
        sums = torch.zeros(question.asked.classes, len(directions)).index_add_(0, labels, along)
        counts = labels.bincount(minlength=question.asked.classes).clamp(min=1)
        return cls(place, rows.mean(dim=0), directions, random, sums / counts[:, None])

    def variants(
        self, x: Float[Tensor, "prompt position width"], words: Int[Tensor, " token"], own: Tensor, other: Tensor
    ) -> Float[Tensor, "variant prompt position width"]:
        """The stream erased, moved, kept, and with each set of random directions erased. `words`: where the tokens of labelled
        words stand, row by row; `own` and `other`: the class of each, and the one that it is moved to."""
        mean, directions = self.mean.to(x), self.directions.to(x)

        def erased(basis: Tensor) -> Tensor:
            """Its mean in place of what it has along a basis."""
            return x - (x - mean) @ basis.T @ basis

        def set_to(classes: Tensor) -> Tensor:
            """The means of these classes in place of what words have."""
            flat = x.flatten(0, 1).clone()
            wanted = self.classes.to(x)[classes]
            flat[words] += (wanted - flat[words] @ directions.T) @ directions
            return flat.unflatten(0, x.shape[:2])

        random = [erased(basis) for basis in self.random.to(x)]
        return torch.stack([erased(directions), set_to(other), set_to(own), *random])
