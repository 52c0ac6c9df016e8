"""The private step and the gate before it: the face of all that imports PyTorch for training."""

from privacy.mechanism.admission import check_admission
from privacy.mechanism.distributed_training import DistributedTrainer
from privacy.mechanism.step_time import measure_step
from privacy.mechanism.training import PrivateTrainer

__all__ = ["DistributedTrainer", "PrivateTrainer", "check_admission", "measure_step"]
