"""Decoding by the hardware of a GPU, where the build of PyAV and the machine have it."""

from __future__ import annotations

from av.codec.hwaccel import HWAccel, hwdevices_available

from pipeline.errors import SourceError


def accelerated(kind: str) -> HWAccel | None:
    """What `av.open` takes as `hwaccel`: pictures come back to the memory of the CPU. None for "none".

    Raises SourceError where this build of PyAV does not know the kind of device.
    """
    if kind == "none":
        return None
    there = hwdevices_available()
    if kind not in there:
        known = ", ".join(there) or "no hardware"
        raise SourceError(f"this build of PyAV decodes by {known}, not by {kind}; leave --hwaccel out")
    return HWAccel(device_type=kind, allow_software_fallback=False)
