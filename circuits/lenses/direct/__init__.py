"""Direct logit attribution."""

from circuits.lenses.direct.attribution import logits

__all__ = ["logits"]
