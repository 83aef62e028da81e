"""Seeds: every random draw of mc1opt comes from a number derived here, so that it can be drawn again."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from what it is for, e.g. `derive_seed(study_seed, trial_number, "dropout")`.

    The parts are hashed with their types and lengths, so that (1, 23) and (12, 3) differ. The result is the
    same on every machine and in every version.
    """
    text = "".join(f"{type(part).__name__}:{len(str(part))}:{part};" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def retrain_seed(study_seed: int, index: int) -> int:
    """The seed of a study's retrainings with an index, counted from 0."""
    return derive_seed(study_seed, "retrain", index)
