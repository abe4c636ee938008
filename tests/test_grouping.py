from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_store

from augkit.ingestion.grouping import assign_folds, join_groups
from augkit.partitions import HOLDOUT, N_FOLDS, k_fold
from augkit.store.reading import in_conflict

NONE = np.zeros(0, np.int64)


def join(
    old: list[int], patients: list[str], pairs: list[tuple[int, int]] | None = None
) -> list[int]:
    first, second = (np.array([p[i] for p in pairs or []], np.int64) for i in (0, 1))
    return join_groups(np.array(old, np.int64), np.array(patients, str), first, second).tolist()


def folds_of(n_groups: int, n_classes: int = 1) -> np.ndarray:
    """Return the folds of groups of one image each, the classes in turn."""
    groups = np.arange(n_groups)
    return np.array(assign_folds(groups, groups % n_classes, []), np.int64)


def test_images_without_relatives_are_groups_of_their_own() -> None:
    assert join([], ["", "", ""]) == [0, 1, 2]
    assert join([], []) == []


def test_images_of_one_patient_are_one_group() -> None:
    assert join([], ["p", "q", "p", "", "q", ""]) == [0, 1, 0, 2, 1, 3]


def test_near_duplicates_are_one_group() -> None:
    assert join([], [""] * 5, [(0, 3), (3, 4)]) == [0, 1, 2, 0, 0]


def test_a_pair_joins_the_whole_groups_of_two_patients() -> None:
    assert join([], ["p", "p", "q", "q", ""], [(1, 3)]) == [0, 0, 0, 0, 1]


def test_old_groups_keep_their_numbers_and_new_ones_follow() -> None:
    assert join([4, 2, 4], ["", "", "", "", ""]) == [4, 2, 4, 5, 6]


def test_a_new_image_joins_the_old_group_of_its_patient() -> None:
    assert join([0, 1, 2], ["", "q", "", "q"]) == [0, 1, 2, 1]


def test_a_new_image_that_connects_two_old_groups_joins_them_under_the_smaller_number() -> None:
    assert join([0, 1, 2, 1], [""] * 5, [(2, 4), (3, 4)]) == [0, 1, 1, 1, 1]
    assert join([0, 1, 2], ["", "p", "", "p"], [(2, 3)]) == [0, 1, 1, 1]


def test_old_groups_stay_joined_whatever_joined_them() -> None:
    assert join([0, 0, 0], ["p", "q", ""]) == [0, 0, 0]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_joining_agrees_with_a_plain_search(data: st.DataObject) -> None:
    n_old, n_new = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 8))
    n = n_old + n_new
    old = [data.draw(st.integers(0, 4)) for _ in range(n_old)]
    patients = [data.draw(st.sampled_from(["", "", "p", "q", "r"])) for _ in range(n)]
    index = st.integers(0, max(n - 1, 0))
    pairs = data.draw(st.lists(st.tuples(index, index), max_size=4)) if n else []
    found = join(old, patients, pairs)
    related = np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            same_old = i < n_old and j < n_old and old[i] == old[j]
            same_patient = patients[i] != "" and patients[i] == patients[j]
            related[i, j] |= same_old or same_patient or (i, j) in pairs or (j, i) in pairs
    for _ in range(n):
        related = related | (related.astype(int) @ related.astype(int) > 0)
    assert np.array_equal(related, np.equal.outer(found, found))
    for i in range(n_old):
        assert found[i] == min(old[j] for j in range(n_old) if related[i, j])
    assert all(found[i] not in old for i in range(n) if not related[i, :n_old].any())


def test_every_group_gets_one_fold_of_twenty() -> None:
    assert sorted(folds_of(20)) == list(range(N_FOLDS))
    assert np.bincount(folds_of(205), minlength=N_FOLDS).max() == 11
    assert np.bincount(folds_of(205), minlength=N_FOLDS).min() == 10


@pytest.mark.parametrize("n_groups", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("others", [0, 1, 40])
def test_a_class_of_few_groups_is_trained_on_and_tested(n_groups: int, others: int) -> None:
    strata = np.array([0] * others + [1] * n_groups + [2] * others)
    folds = np.array(assign_folds(np.arange(len(strata)), strata, []), np.int64)[strata == 1]
    parts = HOLDOUT.part_of_fold()[folds].tolist()
    assert 0 in parts
    assert 2 in parts
    if n_groups > 2:
        assert 1 in parts


@pytest.mark.parametrize("n_groups", [5, 8, 20])
def test_a_class_of_five_groups_is_trained_on_in_every_fold_of_five(n_groups: int) -> None:
    for partition in k_fold(5):
        parts = partition.part_of_fold()[folds_of(n_groups)].tolist()
        assert 0 in parts, partition.name
        assert 2 in parts, partition.name


def test_every_fold_is_a_small_picture_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 1, 1, 2, 3, 6], 400)
    groups = np.repeat(np.arange(400), sizes)
    strata = rng.choice(3, 400, p=[0.6, 0.25, 0.15])[groups]
    folds = np.array(assign_folds(groups, strata, []), np.int64)[groups]
    for stratum in range(3):
        share = np.bincount(folds[strata == stratum], minlength=N_FOLDS) / (strata == stratum).sum()
        assert abs(share - 0.05).max() < 0.02
        in_test = np.isin(folds[strata == stratum], HOLDOUT.test).mean()
        assert abs(in_test - 0.15) < 0.02


def test_a_large_group_does_not_draw_others_into_its_fold() -> None:
    groups = np.concatenate([np.zeros(30, np.int64), np.arange(1, 40)])
    folds = assign_folds(groups, np.zeros(len(groups), np.int64), [])
    assert folds.count(folds[0]) == 1


def test_old_groups_keep_their_folds() -> None:
    first = assign_folds(np.arange(30), np.zeros(30, np.int64), [])
    for extra in (1, 10, 300):
        again = assign_folds(np.arange(30 + extra), np.zeros(30 + extra, np.int64), first)
        assert again[:30] == first
        assert None not in again


def test_a_group_that_grew_keeps_its_fold_and_fewer_groups_come_to_it() -> None:
    groups = np.concatenate([np.arange(20), np.full(40, 3), np.arange(20, 60)])
    first = assign_folds(np.arange(20), np.zeros(20, np.int64), [])
    folds = assign_folds(groups, np.zeros(len(groups), np.int64), first)
    assert folds[:20] == first
    assert first[3] not in folds[20:]


def test_a_group_that_was_joined_to_another_has_no_fold_any_more() -> None:
    folds = assign_folds(np.array([0, 1, 1, 3]), np.zeros(4, np.int64), [5, 6, 7])
    assert folds[:3] == [5, 6, None]
    assert folds[3] is not None


def test_a_number_that_is_used_again_gets_a_fold() -> None:
    folds = assign_folds(np.array([0, 1, 2]), np.zeros(3, np.int64), [5, 6, None])
    assert folds[:2] == [5, 6]
    assert folds[2] is not None


def test_no_images_have_no_folds() -> None:
    assert assign_folds(NONE, NONE, []) == []


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=40), st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_folds_are_the_same_every_time_and_never_move(
    rows: list[tuple[int, int]], known: int
) -> None:
    groups = np.array([g for g, _ in rows], np.int64)
    strata = np.array([s for _, s in rows], np.int64)
    folds = assign_folds(groups, strata, [])
    assert folds == assign_folds(groups, strata, [])
    for group, fold in enumerate(folds):
        assert (fold is None) == (group not in groups)
        assert fold is None or 0 <= fold < N_FOLDS
    before = assign_folds(groups[:known], strata[:known], [])
    after = assign_folds(groups, strata, before)
    for group in set(groups[:known].tolist()):
        assert after[group] == before[group]


def test_groups_that_are_left_out_take_no_place_from_the_others() -> None:
    strata = np.array([0, 1, 0, 1, 0, 0, 1, 1])
    groups = np.array([0, 0, 0, 0, 1, 2, 3, 4])  # group 0 is of both classes
    folds = assign_folds(groups, strata, [], dropped=groups == 0)
    assert [HOLDOUT.part_of_fold()[fold] for fold in folds[1:]] == [0, 2, 0, 2]
    assert folds[0] is not None
    assert folds[0] not in folds[1:]


def test_a_new_group_takes_the_place_of_an_old_one_that_is_now_left_out() -> None:
    old = assign_folds(np.array([0, 1]), np.zeros(2, np.int64), [])
    groups, strata = np.array([0, 1, 0, 2]), np.array([0, 0, 1, 0])
    folds = assign_folds(groups, strata, old, dropped=groups == 0)
    assert folds[:2] == old
    assert folds[2] == folds[0]


def test_a_class_with_conflicts_is_still_trained_on_and_tested(tmp_path: Path) -> None:
    groups = ["x", "x", "a0", "a1", "x", "x", "b0", "b1"]
    store = toy_store(tmp_path / "a.store", 4, classes=("a", "b"), groups=groups)
    snapshot = store.snapshot()
    assert snapshot.real.keys[snapshot.real.conflict].tolist() == [
        f"toy/{c}/{i}.png" for c, i in (("a", 0), ("a", 1), ("b", 4), ("b", 5))
    ]
    for number in (0, 2):
        assert snapshot.count_by_class(snapshot.parts(HOLDOUT) == number) == {"a": 1, "b": 1}


def alike(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def test_groups_that_look_alike_share_a_fold() -> None:
    strata = np.zeros(80, np.int64)
    folds = assign_folds(np.arange(80), strata, [], alike=alike((0, 40), (41, 7), (7, 40)))
    assert len({folds[g] for g in (0, 7, 40, 41)}) == 1
    assert np.bincount(np.array(folds, np.int64), minlength=N_FOLDS).tolist() == [4] * N_FOLDS
    assert folds == assign_folds(np.arange(80), strata, [], alike=alike((0, 40), (41, 7), (7, 40)))


def test_groups_that_look_alike_never_fill_more_than_a_fold() -> None:
    every = alike(*((a, b) for a in range(80) for b in range(a + 1, 80)))
    folds = np.array(assign_folds(np.arange(80), np.zeros(80, np.int64), [], alike=every), np.int64)
    assert np.bincount(folds, minlength=N_FOLDS).tolist() == [4] * N_FOLDS
    few = np.array([0] * 80 + [1, 1])  # a class of two reaches training and test
    folds = np.array(assign_folds(np.arange(82), few, [], alike=alike((80, 81))), np.int64)
    assert sorted(HOLDOUT.part_of_fold()[folds[80:]].tolist()) == [0, 2]


def test_a_new_group_goes_into_the_fold_of_an_old_one_that_it_looks_like() -> None:
    old = assign_folds(np.arange(80), np.zeros(80, np.int64), [])
    folds = assign_folds(
        np.arange(84), np.zeros(84, np.int64), old, alike=alike((5, 80), (81, 80), (82, 6), (5, 6))
    )
    assert folds[:80] == old
    assert folds[80] == folds[81] == old[5] and folds[82] == old[6]


def test_groups_that_are_left_out_draw_nothing_into_their_fold() -> None:
    strata = np.arange(80) % 2
    folds = assign_folds(
        np.arange(80), strata, [], dropped=np.arange(80) == 3, alike=alike((3, 5), (3, 7))
    )
    assert len({folds[3], folds[5], folds[7]}) > 1


def test_in_conflict_is_whatever_shares_a_group_with_another_class() -> None:
    assert in_conflict(np.array([3, 0, 3, 1, 0]), np.array([1, 0, 2, 2, 0])).tolist() == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert in_conflict(NONE, NONE).tolist() == []


def test_a_class_of_one_group_in_each_of_two_data_sets_reaches_training_and_test() -> None:
    groups = np.arange(42)
    classes = np.array([0] * 40 + [1, 1])
    strata = np.array([0] * 20 + [1] * 20 + [2, 3])
    folds = assign_folds(groups, strata, [], classes=classes)
    parts = HOLDOUT.part_of_fold()[[folds[40], folds[41]]]
    assert sorted(parts.tolist()) == [0, 2]
