"""From a configuration to who learns in a round, and to what watches whether the run is well."""

from __future__ import annotations

from gandist.adversarial.balance import Balance, Band
from gandist.config import Config
from gandist.errors import ConfigError
from gandist.evaluation.health import HealthMonitor


def balance_of(config: Config) -> Balance:
    """Return what decides who learns.

    Raises:
        ConfigError: D's accuracy says nothing in this game.

    """
    settings = config.balance
    if settings.kind == "accuracy" and not _has_boundary(config):
        raise ConfigError(
            "balance.kind accuracy: a critic (loss.kind wasserstein) has no boundary between real and fake, so its "
            "accuracy means nothing. Use --balance.kind fixed with --update.d_steps 5, or another loss."
        )
    accuracy, loss = settings.accuracy, settings.loss
    if settings.kind == "loss":  # a score is the better the higher, a loss the lower
        band = Band(-loss.high, -loss.low, loss.margin, settings.longest_rounds)
    else:
        band = Band(accuracy.low, accuracy.high, accuracy.margin, settings.longest_rounds)
    return Balance(settings.kind, band, settings.interval_rounds)


def monitor_of(config: Config) -> HealthMonitor:
    """Return what tells of a run that is not well."""
    return HealthMonitor(config.health.rows, boundary=_has_boundary(config))


def _has_boundary(config: Config) -> bool:
    """Tell whether a judgement of D can be right or wrong: a critic only says which images are better."""
    return config.loss.kind != "wasserstein" or config.loss.relativistic != "off"
