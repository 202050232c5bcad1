"""What nodes, layers and orders of terms are worth."""

from circuits.patching.ablation.ablation import Ablation, ablate

__all__ = ["Ablation", "ablate"]
