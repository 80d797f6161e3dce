"""Adaptive discriminator augmentation (Karras et al. 2020a): transforms that D sees, and how often."""

from gandist.adversarial.augment.ada.pipe import PRESETS as PRESETS
from gandist.adversarial.augment.ada.pipe import Ada as Ada
from gandist.adversarial.augment.ada.strength import Adaptive as Adaptive
from gandist.adversarial.augment.ada.strength import Scheduled as Scheduled
from gandist.adversarial.augment.ada.strength import Strength as Strength
