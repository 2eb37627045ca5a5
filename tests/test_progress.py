"""How far an evaluation says that it is."""

import pytest

from agent.events import Event, describe
from evaluator import progress
from evaluator.protocol import PROTOCOLS

SMOKE = PROTOCOLS["smoke"]


def told_of(epoch: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What is told after so many epochs of the first setting, so many seconds after the first news, before which an hour went."""
    now, told = [100.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    news = progress.Progress(SMOKE, SMOKE.settings, told.append)
    now[0] += 3600.0
    for done, passed in ((0, 0.0), (epoch, seconds)):
        now[0] += passed
        news.update(SMOKE.settings[0], {"epoch": done, "step": done, "seconds": passed, "accuracy": [0.25, float("nan")]})
    assert told[0]["seconds_left"] is None
    return dict(told[-1])


def test_time_left_is_that_of_the_tokens_that_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [progress.cost(s, SMOKE) for s in SMOKE.settings]
    told = told_of(SMOKE.epochs // 2, 40.0, monkeypatch)
    half = costs[0] * (SMOKE.epochs // 2) / SMOKE.epochs
    assert told["seconds_left"] == round(40.0 * (sum(costs) - half) / half)
    assert told["accuracy"] == 0.25


@pytest.mark.parametrize(
    "wrong", [{"epoch": 10**400}, {"epoch": -1}, {"epoch": True}, {"step": 10**400}, {"seconds": float("inf")}, {"seconds": 10**400}, {"accuracy": 1}]
)
def test_figures_that_cannot_be_are_not_told(wrong: dict[str, object]) -> None:
    told: list[dict[str, object]] = []
    news = progress.Progress(SMOKE, SMOKE.settings, told.append)
    news.update(SMOKE.settings[0], {"epoch": 1, "step": 1, "seconds": 1.0, "accuracy": [10**400, "x"]} | wrong)
    assert told == []
    news.update(SMOKE.settings[0], {"epoch": 1, "step": 1, "seconds": 1.0, "accuracy": [10**400, "x", 0.5]})
    assert told[0]["accuracy"] == 0.5


def test_no_time_is_foretold_from_set_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "cost", lambda setting, protocol: 1.0 if setting is SMOKE.settings[0] else 1000.0)
    assert told_of(1, 5.0, monkeypatch)["seconds_left"] is None
    assert told_of(1, 50.0, monkeypatch)["seconds_left"] is not None


def test_a_time_left_is_said_to_be_the_most_that_it_can_be() -> None:
    event = Event(event="progress", task="memorization", setting="baseline", step=10, steps=20, accuracy=0.5, seconds_left=7200)
    assert describe(event) == "memorization baseline  step 10/20  accuracy 0.500  at most 2.0 h left"
