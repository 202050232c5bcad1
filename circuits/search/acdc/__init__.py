"""ACDC: edges are cut one after the other, from the logits backwards."""

from circuits.search.acdc.between import acdc_between
from circuits.search.acdc.descent import acdc, acdc_thresholds

__all__ = ["acdc", "acdc_between", "acdc_thresholds"]
