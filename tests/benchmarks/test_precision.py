"""The table of float32 against bfloat16."""

from benchmarks.precision import precision_table


def figures(*rounds: list[float]) -> dict[str, list[object]]:
    return {"seconds": list(rounds), "accuracies": [0.5, 0.6]}


def test_the_first_epoch_of_each_round_is_left_out_of_the_seconds() -> None:
    found = {
        "float32": figures([9.0, 2.0, 2.0], [9.0, 2.0, 4.0]),
        "bfloat16": figures([9.0, 1.0], [9.0, 1.0]),
    }
    header, _, single, half = precision_table(found).splitlines()
    assert header.startswith("| precision | seconds an epoch | of float32 |")
    assert single == "| float32 | 2.00 | 1.00 | 0.5500 | 0.5000 0.6000 |"
    assert half.startswith("| bfloat16 | 1.00 | 0.50 |")


def test_of_a_single_epoch_that_one_counts() -> None:
    found = {"float32": figures([4.0], [4.0]), "bfloat16": figures([6.0], [6.0])}
    assert "| bfloat16 | 6.00 | 1.50 |" in precision_table(found)
