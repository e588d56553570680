"""Tridos: triple-domain features for moving infrared small targets.

Duan, Ji, Chen, Zhu, Ye, "Triple-domain Feature Learning with Frequency-aware Memory Enhancement for
Moving Infrared Small Target Detection", IEEE TGRS 2024, doi 10.1109/TGRS.2024.3452175.
"""

from detectors.networks.tridos.network import Tridos
from detectors.networks.tridos.stream import TridosStream

__all__ = ["Tridos", "TridosStream"]
