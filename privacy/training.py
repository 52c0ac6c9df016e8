"""The private step and the gate before it: the face of all that imports PyTorch for training."""

from privacy.mechanism.admission import check_admission, check_apart, require_loss
from privacy.mechanism.float32 import whole_float32
from privacy.mechanism.gradient_training import GradientTrainer
from privacy.mechanism.public_signal import public_clipped_means
from privacy.mechanism.step_time import measure_step
from privacy.mechanism.training import PrivateTrainer

__all__ = [
    "GradientTrainer",
    "PrivateTrainer",
    "check_admission",
    "check_apart",
    "measure_step",
    "public_clipped_means",
    "require_loss",
    "whole_float32",
]
