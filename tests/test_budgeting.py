"""Budgets: what fits into half an hour, the same for all arms."""

import pytest

from augkit.budgeting import LIMIT, Budget, Work, cut_to_fit, in_words, seconds
from augkit.interfaces import Cost, Schedule


def work(seeds=5, arms=4, steps=340, looks=10, done=0):
    left = tuple(0 if seed < done else arms for seed in range(seeds))
    return Work(arms, left, n_validation=100, n_test=100, schedule=Schedule(steps, looks))


def test_seconds_count_setup_steps_looks_and_the_test():
    cost = Cost(setup=2, step=0.5, image=0.01)
    assert seconds([work(seeds=1, arms=1)], cost) == pytest.approx(2 + 340 * 0.5 + 11 * 100 * 0.01)


def test_what_is_fitted_already_costs_nothing():
    assert seconds([work(done=5)], Cost(step=1)) == 0
    assert seconds([work(done=3)], Cost(step=1)) == 2 * 4 * 340


def test_seeds_are_cut_first():
    cost = Cost(step=LIMIT / (4 * 340 * 4))
    found = cut_to_fit([work()], cost, features=0)
    assert found == Budget(4, (Schedule(340, 10),), "4 of 5 seeds")


def test_three_seeds_are_kept_and_then_steps_are_cut():
    cost = Cost(step=LIMIT / (3 * 340 * 4) * 4)
    found = cut_to_fit([work()], cost, features=0)
    assert found.seeds == 3, "fewer allow no verdict"
    assert found.schedules[0].steps == 85
    assert found.reduced == "3 of 5 seeds, 85 of 340 steps, 8 of 10 looks"
    assert 3 * 4 * found.schedules[0].steps * cost.step <= LIMIT


def test_fewer_seeds_than_three_are_not_made_more():
    found = cut_to_fit([work(seeds=1)], Cost(step=60), features=0)
    assert found.seeds == 1
    assert found.schedules[0].steps < 340


def test_every_partition_is_cut_by_the_same_share():
    found = cut_to_fit([work(), work(steps=680)], Cost(step=10), features=0)
    short, long = found.schedules
    assert long.steps == pytest.approx(2 * short.steps, abs=1)


def test_at_least_one_step_is_left_whatever_it_takes():
    found = cut_to_fit([work()], Cost(step=1e6), features=2 * LIMIT)
    assert found.schedules[0] == Schedule(1, 1)


def test_a_budget_survives_json():
    for budget in (cut_to_fit([work()], Cost(step=10), features=0), Budget(5, (None, None))):
        assert Budget.from_json(budget.as_json()) == budget


@pytest.mark.parametrize(
    ("duration", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (725, "12 minutes"), (12600, "3.5 hours")],
)
def test_durations_are_said_as_people_say_them(duration, words):
    assert in_words(duration) == words
