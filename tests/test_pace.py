"""How long a search takes is said once, early, where it takes minutes."""

import logging

import pytest

from augkit.ingestion import pace
from augkit.ingestion.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_what_takes_minutes_is_said_once(clock, caplog):
    caplog.set_level(logging.INFO, "augkit")
    search = Pace("comparing 7 pairs")
    for second, share in ((1, 0.001), (5, 0.01), (10, 0.5), (11, 0.51)):
        clock[0] = 100.0 + second
        search.at(share)
    said = "comparing 7 pairs: about 8 minutes more. --no-find-relatives does not look for them"
    assert caplog.messages == [said]


def test_what_takes_seconds_is_not_said(clock, caplog):
    caplog.set_level(logging.INFO, "augkit")
    search = Pace("comparing")
    search.at(0.0)
    clock[0] = 110.0
    search.at(0.0)
    search.at(0.2)
    clock[0] = 1000.0
    search.at(0.201)
    assert caplog.messages == []
