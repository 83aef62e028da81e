"""The former place of `mc1opt.suggest`, from which older study files import."""

from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule

__all__ = ["suggest_augmentation", "suggest_optimizer", "suggest_schedule"]
