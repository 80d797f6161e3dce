"""Every knob of a run, in typed frozen sections: declare, load, override, explain, compare.

A recipe is one YAML file whose keys are the sections below; the command line overrides single knobs with
``--section.key value``. A knob states its default, its range, one sentence, and what a change means to a run
that is continued with it (:data:`Change`). The sections ``execution``, ``tracking``, ``checkpoint`` and
``fault`` say how a run is carried out; every other section says what the run *is*.
"""

from gandist.config.augment import AdaConfig as AdaConfig
from gandist.config.augment import AugmentConfig as AugmentConfig
from gandist.config.averages import WIDEST_STD as WIDEST_STD
from gandist.config.averages import EmaConfig as EmaConfig
from gandist.config.balance import BalanceConfig as BalanceConfig
from gandist.config.balance import HealthConfig as HealthConfig
from gandist.config.data import DataConfig as DataConfig
from gandist.config.data import RunConfig as RunConfig
from gandist.config.data import StreamConfig as StreamConfig
from gandist.config.execution import CacheConfig as CacheConfig
from gandist.config.execution import CheckpointConfig as CheckpointConfig
from gandist.config.execution import ExecutionConfig as ExecutionConfig
from gandist.config.execution import FaultConfig as FaultConfig
from gandist.config.execution import SamplesConfig as SamplesConfig
from gandist.config.execution import TrackingConfig as TrackingConfig
from gandist.config.execution import WandbConfig as WandbConfig
from gandist.config.explain import Difference as Difference
from gandist.config.explain import differences as differences
from gandist.config.explain import explain as explain
from gandist.config.knobs import Change as Change
from gandist.config.knobs import Schedule as Schedule
from gandist.config.knobs import Section as Section
from gandist.config.knobs import knob as knob
from gandist.config.knobs import section as section
from gandist.config.method import AdamConfig as AdamConfig
from gandist.config.method import LossConfig as LossConfig
from gandist.config.method import OptimizerConfig as OptimizerConfig
from gandist.config.method import UpdateConfig as UpdateConfig
from gandist.config.models import BigganConfig as BigganConfig
from gandist.config.models import CipsConfig as CipsConfig
from gandist.config.models import DcganConfig as DcganConfig
from gandist.config.models import GatConfig as GatConfig
from gandist.config.models import MlpConfig as MlpConfig
from gandist.config.models import ModelConfig as ModelConfig
from gandist.config.models import ProgressiveConfig as ProgressiveConfig
from gandist.config.models import R3ganConfig as R3ganConfig
from gandist.config.models import ResnetConfig as ResnetConfig
from gandist.config.models import StyleGan2Config as StyleGan2Config
from gandist.config.penalties import PenaltyConfig as PenaltyConfig
from gandist.config.penalties import RegularizerConfig as RegularizerConfig
from gandist.config.recipe import Config as Config
from gandist.config.recipe import Leaf as Leaf
from gandist.config.recipe import check_knobs as check_knobs
from gandist.config.recipe import dump as dump
from gandist.config.recipe import embedded_recipe as embedded_recipe
from gandist.config.recipe import leaves as leaves
from gandist.config.recipe import load as load
from gandist.config.recipe import merge as merge
from gandist.config.recipe import override as override
from gandist.config.recipe import parse as parse
from gandist.config.recipe import read_recipe as read_recipe
from gandist.config.recipe import to_yaml as to_yaml
