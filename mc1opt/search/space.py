"""Where study files of before import suggestions from; they are in `mc1opt.suggest`."""

from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule

__all__ = ["suggest_augmentation", "suggest_optimizer", "suggest_schedule"]
