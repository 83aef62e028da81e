"""Seeds."""

from mc1opt.seeds import derive_seed


def test_a_seed_is_the_same_in_every_version() -> None:
    assert derive_seed(0, 1, "relative") == 4625003917920910672


def test_parts_are_kept_apart_by_place_and_type() -> None:
    seeds = {
        derive_seed(1, 23),
        derive_seed(12, 3),
        derive_seed(123),
        derive_seed("1", 23),
        derive_seed(23, 1),
    }
    assert len(seeds) == 5


def test_seeds_fit_in_63_bits() -> None:
    assert all(0 <= derive_seed(i) < 2**63 for i in range(1000))
    assert max(derive_seed(i) for i in range(1000)) > 2**62
