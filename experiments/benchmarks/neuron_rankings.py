"""Speed of choosing neurons by Gaussians, one after the other, against fitting each candidate from scratch.

    python experiments/benchmarks/neuron_rankings.py [--json] [--neurons 576] [--choose 50] [--classes 17] [--words 4000]

Random vectors whose first half of the neurons tell the classes apart, a different one each by a little; half of the words
are fitted to, on the other half neurons are chosen, all in float64. Reference: for a candidate the Gaussians of the chosen
neurons and itself are fitted to the words (means, covariances, their Cholesky factors) and give the other words' likelihood. It
is timed on a sample of candidates at steps drawn evenly and scaled to all that a choice would try; at each of these steps the
neuron that was chosen must be likelier than the others of the sample, by the same number as the fast way has it.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from circuits.probes.ranking.gaussians import PULL, Chosen, Gaussians, choose_by_gaussians
from experiments.benchmarks.measure import Row, seconds_of, show

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Words:
    """Words to fit to, and words to choose by."""

    x: Tensor
    labels: Tensor
    held: Tensor
    held_labels: Tensor
    classes: int


def drawn(neurons: int, classes: int, words: int, seed: int = 0) -> Words:
    """Random words, each class among them."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (words,), generator=made)
    labels[:classes] = labels[words // 2 : words // 2 + classes] = torch.arange(classes)
    mixing = torch.randn(neurons, neurons, generator=made, dtype=torch.float64) * neurons**-0.5
    x = torch.randn(words, neurons, generator=made, dtype=torch.float64) @ (torch.eye(neurons, dtype=torch.float64) + mixing)
    means = torch.randn(classes, neurons, generator=made, dtype=torch.float64)
    x += means[labels] * torch.linspace(0.6, -0.6, neurons, dtype=torch.float64).clamp(min=0)
    half = words // 2
    return Words(x[:half], labels[:half], x[half:], labels[half:], classes)


def from_scratch(words: Words, some: list[int]) -> float:
    """The log-likelihood of the held-out labels by Gaussians of some neurons alone, fitted to the words."""
    x, held = words.x[:, some], words.held[:, some]
    variance, centre = torch.var_mean(x, dim=0, correction=0)
    joint = held.new_empty(len(held), words.classes)
    for label in range(words.classes):
        own = x[words.labels == label]
        mean = own.mean(dim=0)
        apart, away = own - mean, mean - centre
        scatter = apart.T @ apart + PULL * len(own) / (PULL + len(own)) * torch.outer(away, away) + variance.diag()
        factor = torch.linalg.cholesky(scatter / (1 + len(own)))
        centred = held - (own.sum(dim=0) + PULL * centre) / (len(own) + PULL)
        scaled = torch.linalg.solve_triangular(factor, centred.T, upper=False)
        joint[:, label] = math.log(len(own) / len(x)) - factor.diagonal().log().sum() - scaled.square().sum(dim=0) / 2
    return float(joint.log_softmax(dim=1).gather(1, words.held_labels[:, None]).sum())


def sampled(words: Words, chosen: Chosen, steps: int, candidates: int) -> float:
    """Seconds that the reference would take for the whole choice. Exits where the fast way has another number or choice."""
    order, neurons = chosen.neurons.tolist(), words.x.shape[1]
    shares = words.held_labels.bincount(minlength=words.classes) / len(words.held)
    entropy = float(-torch.special.xlogy(shares, shares).sum()) / math.log(2)
    made = torch.Generator().manual_seed(1)
    each = []
    for step in torch.linspace(0, len(order) - 1, steps).round().long().tolist():
        best = from_scratch(words, order[: step + 1])
        said = (float(chosen.bits[step]) - entropy) * math.log(2) * len(words.held)
        if abs(best - said) > 1e-6 * abs(best):
            raise SystemExit(f"step {step}: the fast way has {said}, fitting from scratch {best}")
        others = [n for n in torch.randperm(neurons, generator=made).tolist() if n not in order[: step + 1]][:candidates]
        likelihoods: list[float] = []

        def tried(others: list[int] = others, step: int = step, found: list[float] = likelihoods) -> None:
            found += [from_scratch(words, [*order[:step], other]) for other in others]

        each.append(seconds_of(tried, CPU) / len(others) * (neurons - step))
        if max(likelihoods) > best:
            raise SystemExit(f"step {step}: a neuron that was not chosen is likelier")
    return sum(each) / len(each) * len(order)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--neurons", type=int, default=576)
    parser.add_argument("--choose", type=int, default=50)
    parser.add_argument("--classes", type=int, default=17)
    parser.add_argument("--words", type=int, default=4000)
    parser.add_argument("--sample", type=int, default=6, help="steps, and candidates of each, that the reference is timed on")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = drawn(options.neurons, options.classes, options.words)
    kept: list[Chosen] = []

    def ours() -> None:
        gaussians = Gaussians.of(words.x, words.labels, classes=words.classes)
        kept.append(choose_by_gaussians(gaussians, words.held, words.held_labels, count=options.choose))

    seconds = seconds_of(ours, CPU)
    reference = sampled(words, kept[0], min(options.sample, options.choose), options.sample)
    row = Row("greedy_gaussian", seconds, reference, reference / seconds)
    heading = (
        f"{options.choose} of {options.neurons} neurons, {options.classes} classes, {options.words // 2} words fitted to and "
        f"as many chosen by, {options.threads} threads; reference: each candidate fitted from scratch"
    )
    show([row], as_json=options.json, heading=heading)


if __name__ == "__main__":
    main()
