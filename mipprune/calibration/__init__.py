"""From a network and data to channel-selection problems, in one streaming pass."""

from mipprune.calibration.collection import calibrate
from mipprune.calibration.families import CalibratedFamily, Calibration, apply_weights

__all__ = ["CalibratedFamily", "Calibration", "apply_weights", "calibrate"]
