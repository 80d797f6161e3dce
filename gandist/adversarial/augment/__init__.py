"""What is done to images before D sees them: DiffAugment, ADA and instance noise."""

from gandist.adversarial.augment.ada import PRESETS as PRESETS
from gandist.adversarial.augment.ada import Ada as Ada
from gandist.adversarial.augment.ada import Adaptive as Adaptive
from gandist.adversarial.augment.ada import Scheduled as Scheduled
from gandist.adversarial.augment.ada import Strength as Strength
from gandist.adversarial.augment.diff_augment import DiffAugment as DiffAugment
from gandist.adversarial.augment.instance_noise import InstanceNoise as InstanceNoise
from gandist.adversarial.augment.interface import Augment as Augment
from gandist.adversarial.augment.interface import Pipeline as Pipeline
