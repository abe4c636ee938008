"""Budgets: what fits into half an hour, the same for all arms."""

import json
from dataclasses import asdict

import pytest

from augkit.budgeting import LEAST, LIMIT, Budget, Work, cut_to_fit, in_words, part_of, seconds
from augkit.interfaces import Cost, Schedule


def work(seeds=5, steps=340, looks=10, done=0):
    left = tuple(seed >= done for seed in range(seeds))
    return Work(left, n_validation=100, n_test=100, schedule=Schedule(steps, looks))


def test_seconds_count_setup_steps_looks_and_the_test():
    cost = Cost(setup=2, step=0.5, image=0.01)
    assert seconds([work(seeds=1)], cost) == pytest.approx(2 + 340 * 0.5 + 11 * 100 * 0.01)


def test_what_is_fitted_already_costs_nothing():
    assert seconds([work(done=5)], Cost(step=1)) == 0
    assert seconds([work(done=3)], Cost(step=1)) == 2 * 340


def test_seeds_are_cut_first():
    cost = Cost(step=LIMIT / (4 * 340 * 4))
    assert cut_to_fit([work()] * 4, cost, features=0) == Budget(4, 1.0, "4 of 5 seeds")


def test_three_seeds_are_kept_and_then_steps_are_cut():
    cost = Cost(step=LIMIT / (3 * 340))
    found = cut_to_fit([work()] * 4, cost, features=0)
    assert found.seeds == 3, "fewer allow no verdict"
    assert found.share == pytest.approx(0.25, abs=0.003)
    assert found.reduced == "3 of 5 seeds, 85 of 340 steps, 8 of 10 looks"


def test_fewer_seeds_than_three_are_not_made_more():
    found = cut_to_fit([work(seeds=1)], Cost(step=60), features=0)
    assert found.seeds == 1
    assert found.share < 1


def test_features_that_take_all_of_the_time_do_not_cost_the_fits_theirs():
    assert cut_to_fit([work(steps=1720)], Cost(step=2e-4), features=2 * LIMIT) == Budget(5)
    found = cut_to_fit([work()] * 4, Cost(step=1), features=2 * LIMIT)
    assert 12 * part_of(work().schedule, found.share).steps == pytest.approx(LEAST, rel=0.05)


def test_at_least_one_step_is_left_whatever_it_takes():
    found = cut_to_fit([work()], Cost(step=1e6), features=0)
    assert part_of(work().schedule, found.share) == Schedule(1, 1)


def test_a_whole_share_is_the_schedule_itself():
    assert part_of(Schedule(7, 10), 1.0) == Schedule(7, 10)


def test_a_budget_survives_json_and_a_damaged_one_is_unknown():
    budget = cut_to_fit([work()], Cost(step=10), features=0)
    assert Budget.from_json(json.loads(json.dumps(asdict(budget)))) == budget
    for broken in (None, {}, {"seeds": "many", "share": 1, "reduced": ""}, {"seeds": 0}):
        assert Budget.from_json(broken) is None


@pytest.mark.parametrize(
    ("duration", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (725, "12 minutes"), (12600, "3.5 hours")],
)
def test_durations_are_said_as_people_say_them(duration, words):
    assert in_words(duration) == words
