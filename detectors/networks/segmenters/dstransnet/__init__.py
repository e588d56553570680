"""DSTransNet: dynamic feature selection with feature enhancement and multi-attention.

Huang et al., "DSTransNet: Dynamic Feature Selection Network With Feature Enhancement and Multiattention for
Infrared Small Target Detection", IEEE TGRS 63, 2025.
"""

from detectors.networks.segmenters.dstransnet.network import STATISTICS, DSTransNet, learning_rate

__all__ = ["STATISTICS", "DSTransNet", "learning_rate"]
