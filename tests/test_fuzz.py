"""Hostile inputs by chance; the full campaign is `python tests/fuzz.py --n 20000`."""

import random
import signal
from pathlib import Path

import fuzz
import pytest
from fuzz import MUTATIONS, Lab, Worker, campaign, mutate_bytes, mutate_value
from hostile import read_everything

from augkit.errors import AugkitError


def test_half_of_the_inputs_carry_hashes_that_fit() -> None:
    shares = [(share, fits) for _, fits, share in MUTATIONS.values()]
    assert sum(share for share, fits in shares if fits) > sum(share for share, _ in shares) / 2


def test_mutations_change_something_and_are_the_same_for_the_same_seed() -> None:
    content, value = bytes(range(256)) * 8, {"a": [1, 2, {"b": "text"}], "c": None}
    changed = [mutate_bytes(content, random.Random(seed)) for seed in range(50)]
    values = [repr(mutate_value(value, random.Random(seed))) for seed in range(50)]
    assert sum(each != content for each in changed) > 45
    assert len(set(values)) > 30
    assert changed == [mutate_bytes(content, random.Random(seed)) for seed in range(50)]


@pytest.mark.slow
def test_what_is_not_mutated_is_accepted(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    read_everything(lab.store)
    read_everything(lab.packed)


@pytest.mark.slow
def test_each_mutation_makes_inputs_and_some_are_refused(tmp_path: Path) -> None:
    lab, refused = Lab(tmp_path), set()
    for (target, mutation), (make, _, _) in MUTATIONS.items():
        for seed in range(12):
            try:
                make(lab, random.Random(seed))()
            except AugkitError:
                refused.add((target, mutation))
    assert refused == set(MUTATIONS)


@pytest.mark.slow
def test_crashes_and_hangs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(tmp_path)
    try:
        assert worker.ask("image", "bytes", "0")["end"] in ("accepted", "refused")
        worker._child.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(fuzz, "PATIENCE", 0.3)
        assert worker.ask("image", "bytes", "1")["end"] == "hang"
        monkeypatch.setattr(fuzz, "PATIENCE", 30)
        worker.ask("image", "bytes", "2")
        worker._child.kill()
        worker._child.wait()
        assert worker.ask("image", "bytes", "3")["end"] == "crash"
    finally:
        worker.close()


@pytest.mark.slow
def test_no_input_ends_hangs_or_surprises_augkit_or_reaches_out_of_its_folder() -> None:
    said: list[str] = []
    lines = campaign(400, 7, said.append)
    assert said == []
    assert sum(line["inputs"] for line in lines) == 400
    assert sum(line["refused"] for line in lines) > 200
    assert sum(line["accepted"] for line in lines) > 40
