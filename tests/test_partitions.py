import re

import pytest

from augkit.errors import OptionError
from augkit.partitions import HOLDOUT, N_FOLDS, Partition, k_fold, protocol, split

TRIPLES = [
    f"{a}/{b}/{100 - a - b}" for a in range(5, 95, 5) for b in range(5, 100 - a, 5) if a + b < 100
]


def every_partition(repeats: int) -> list[Partition]:
    found = [split(shares, r) for shares in TRIPLES for r in range(repeats)]
    for folds in (2, 4, 5, 10, 20):
        found += [p for r in range(repeats) for p in k_fold(folds, r)]
    return found


def test_seventy_fifteen_fifteen_is_fourteen_folds_and_three_and_three() -> None:
    assert split("70/15/15") == HOLDOUT
    assert HOLDOUT.name == "70/15/15"
    assert HOLDOUT.train == tuple(range(14))
    assert HOLDOUT.validation == (14, 15, 16)
    assert HOLDOUT.test == (17, 18, 19)


@pytest.mark.parametrize("shares", TRIPLES)
def test_a_split_has_the_shares_that_were_asked_for(shares: str) -> None:
    made = split(shares)
    sizes = [5 * len(part) for part in (made.train, made.validation, made.test)]
    assert "/".join(map(str, sizes)) == shares
    assert made.train + made.validation + made.test == tuple(range(N_FOLDS))


def test_blanks_and_zeros_before_a_share_do_not_matter() -> None:
    assert split(" 70/015/15 ") == HOLDOUT


def test_every_partition_uses_each_fold_once() -> None:
    for partition in every_partition(repeats=4):
        used = [*partition.train, *partition.validation, *partition.test]
        assert sorted(used) == list(range(N_FOLDS)), partition
        assert partition.train, partition
        assert partition.validation, partition
        assert partition.test, partition


def test_names_of_partitions_are_unique() -> None:
    names = [p.name for p in every_partition(repeats=4)]
    assert len(set(names)) == len(names)


def test_part_of_fold_says_what_the_tuples_say() -> None:
    for partition in every_partition(repeats=2):
        parts = partition.part_of_fold()
        for number, folds in enumerate((partition.train, partition.validation, partition.test)):
            assert {f for f in range(N_FOLDS) if parts[f] == number} == set(folds)


def test_folds_that_a_partition_does_not_name_are_in_no_part() -> None:
    parts = Partition("few", (0, 1), (5,), (9,)).part_of_fold()
    assert parts.tolist() == [0, 0, -1, -1, -1, 1, -1, -1, -1, 2, *[-1] * 10]


def test_five_folds_test_four_validate_the_next_three_and_train_on_thirteen() -> None:
    made = k_fold(5)
    assert len(made) == 5
    for k, partition in enumerate(made):
        assert partition.test == tuple(range(4 * k, 4 * k + 4))
        assert partition.validation == tuple((4 * k + i) % N_FOLDS for i in (4, 5, 6))
        assert len(partition.train) == 13
        assert partition.name == f"fold {k + 1} of 5"


@pytest.mark.parametrize("folds", [2, 4, 5, 10, 20])
@pytest.mark.parametrize("repeat", [0, 3])
def test_k_folds_test_every_fold_exactly_once(folds: int, repeat: int) -> None:
    tested = [fold for partition in k_fold(folds, repeat) for fold in partition.test]
    assert sorted(tested) == list(range(N_FOLDS))
    assert {len(p.test) for p in k_fold(folds, repeat)} == {N_FOLDS // folds}
    assert {len(p.validation) for p in k_fold(folds, repeat)} == {3}


def test_repeats_deal_the_folds_anew_and_always_in_the_same_way() -> None:
    tests = [split("70/15/15", r).test for r in range(20)]
    assert tests[0] == HOLDOUT.test
    assert len({frozenset(t) for t in tests}) > 15
    assert tests == [split("70/15/15", r).test for r in range(20)]
    assert split("70/15/15", 1).test == (7, 19, 11)  # a change would move every stored evaluation


def test_a_repeat_of_folds_deals_all_its_blocks_from_one_order() -> None:
    order = [fold for p in k_fold(5, 2) for fold in p.test]
    assert split("70/15/15", 2).train == tuple(order[:14])


def test_a_protocol_holds_all_partitions_of_all_repeats() -> None:
    assert protocol(None, None, 1).partitions == (HOLDOUT,)
    assert protocol("80/10/10", None, 1).name == "80/10/10"
    assert protocol(None, 5, 1).partitions == k_fold(5)
    thrice = protocol(None, 5, 3)
    assert thrice.name == "5 folds, 3 repeats"
    assert thrice.partitions == k_fold(5) + k_fold(5, 1) + k_fold(5, 2)
    assert [p.name for p in protocol(None, None, 2).partitions] == [
        "70/15/15",
        "70/15/15, repeat 1",
    ]


@pytest.mark.parametrize(
    "shares", ["", "70/30", "70/15/15/0", "70/20/15", "72/14/14", "100/0/0", "85/15/0", "-5/90/15",
               "70-15-15", "a/b/c", "70/15/15%"],
)  # fmt: skip
def test_a_bad_split_is_named_with_an_example_of_a_good_one(shares: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"split {shares!r}")) as caught:
        split(shares)
    assert "steps of 5 that add up to 100, such as 70/15/15; given is the" in str(caught.value)


@pytest.mark.parametrize("folds", [-5, 0, 1, 3, 6, 40])
def test_a_number_of_folds_that_does_not_divide_twenty_is_refused(folds: int) -> None:
    with pytest.raises(OptionError, match=f"folds is {folds}; it must be one of: 2, 4, 5, 10, 20"):
        k_fold(folds)
    with pytest.raises(OptionError, match=f"folds is {folds};"):
        protocol(None, folds, 1)


@pytest.mark.parametrize("repeats", [0, -1])
def test_less_than_one_repeat_is_refused(repeats: int) -> None:
    with pytest.raises(OptionError, match=f"repeats is {repeats}; it must be at least 1"):
        protocol(None, None, repeats)
