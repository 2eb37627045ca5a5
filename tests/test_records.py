"""evaluation.json is believed as far as it adds up: what is read of it is bounded, and derived figures are what they derive from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.recordfile import read_record
from agent.records import Attempt, Evaluation

HISTORY = Path(__file__).parent.parent / "history"
WHOLE, PART = "r0001", "r0010"
"""All 66 settings; ten of them, of memorization five of six."""

Edit = Callable[[dict[str, Any]], object]


def read(tmp_path: Path, entry: str, edit: Edit) -> Evaluation | None:
    """The evaluation of that entry after the edit."""
    found = json.loads((HISTORY / entry / "evaluation.json").read_text())
    edit(found)
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    return read_record(tmp_path / "evaluation.json", Evaluation)


def setting(found: dict[str, Any], **values: object) -> None:
    found["tasks"]["memorization"]["settings"]["baseline"].update(values)


@pytest.mark.parametrize(
    ("entry", "edit", "told"),
    [
        (PART, lambda found: found.update(mad_score=1e308), "mad_score: Input should be less than or equal to 1"),
        (PART, lambda found: found.update(mad_score=0.5), "mad_score is 0.5, but the mean of its six scores is None"),
        (WHOLE, lambda found: found.update(mad_score=0.5), "mad_score is 0.5, but the mean of its six scores is 0.674358"),
        (PART, lambda found: found["protocol"].update(settings=[5]), "protocol.settings.0: Input should be an object"),
        (PART, lambda found: found["protocol"].pop("settings"), "protocol.settings: Field required"),
        (PART, lambda found: found["protocol"]["settings"][0].pop("seq_len"), "protocol.settings.0.seq_len: Field required"),
        (PART, lambda found: found["protocol"].update(lrs=[]), "protocol.lrs: Tuple should have at least 1 item"),
        (PART, lambda found: found["protocol"].update(weight_decays=["none"]), "protocol.weight_decays.0: Input should be a valid number"),
        (PART, lambda found: found["protocol"]["settings"].pop(), "selective-copying is said to have 13 settings, its protocol has 12"),
        (PART, lambda found: setting(found, accuracy=1.5), "settings.baseline.accuracy: Input should be less than or equal to 1"),
        (PART, lambda found: setting(found, accuracy=-0.5), "settings.baseline.accuracy: Input should be greater than or equal to 0"),
        (PART, lambda found: setting(found, seconds=-1), "settings.baseline.seconds: Input should be greater than or equal to 0"),
        (WHOLE, lambda found: setting(found, accuracy=0.5), "tasks.memorization: accuracy is 0.375753"),
        (WHOLE, lambda found: setting(found, accuracy=None), "but its settings give None"),
        (PART, lambda found: found["tasks"]["memorization"].update(settings_done=4), "4 of 6 settings are said to be done, 5 are there"),
        (PART, lambda found: found["tasks"]["memorization"].update(settings_total=5), "accuracy is None, but its settings give 0.449846"),
        (PART, lambda found: found["tasks"]["memorization"].update(settings_total=4), "5 of 4 settings are said to be done, 5 are there"),
        (PART, lambda found: found["tasks"]["memorization"].update(accuracy=0.5), "accuracy is 0.5, but its settings give None"),
        (PART, lambda found: found["scores"].update(Memorize=0.5), "Memorize is 0.5, but the accuracy of memorization is None"),
        (WHOLE, lambda found: found["scores"].update(Memorize=0.5), "Memorize is 0.5, but the accuracy of memorization is 0.375753"),
        (WHOLE, lambda found: found["scores"].update(Memorize=None), "Memorize is None, but the accuracy of memorization is 0.375753"),
        (PART, lambda found: found["tasks"].pop("compression") and found["scores"].update(Compress=0.5), "Compress is 0.5, but the accuracy of compression is None"),
        (PART, lambda found: found.update(status="scored"), "status is scored, but compression is not whole"),
        (WHOLE, lambda found: found["tasks"].pop("memorization") and found["scores"].pop("Memorize"), "status is scored, but memorization is not whole"),
        (PART, lambda found: found.update(seeds=[]), "seeds: Tuple should have at least 1 item"),
        (PART, lambda found: found.update(seeds=[0, 2]), "seeds are 0, 2: a replay trains those that follow on the first"),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_damaged(tmp_path: Path, entry: str, edit: Edit, told: str) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.json is damaged") as raised:
        read(tmp_path, entry, edit)
    assert told in str(raised.value)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: found.update(new={"of": ["a", "later", "program"]}),
        lambda found: setting(found, new=-1),
        lambda found: found["tasks"].update({"a-seventh": {"accuracy": None, "settings_done": 0, "settings_total": 0, "settings": {}}}),
        lambda found: found["scores"].update({"A Seventh": 0.5}),
        lambda found: found.update(status="partial", mad_score=None) or found["scores"].update(Memorize=None),  # gates are still owed
        lambda found: found.pop("mad_score"),
        lambda found: setting(found, seconds=None),
    ],
)
def test_what_says_nothing_false_is_left_alone(tmp_path: Path, edit: Edit) -> None:
    assert read(tmp_path, WHOLE, edit)


def test_no_noise_is_more_than_a_score_can_have(tmp_path: Path) -> None:
    attempt = json.loads((HISTORY / PART / "attempt.json").read_text())
    for noise in ({"noise": {"Compress": -0.1}}, {"noise": {"Compress": 1e308}}, {"setting_noise": {"memorization:baseline": 2}}):
        (tmp_path / "attempt.json").write_text(json.dumps(attempt | noise))
        with pytest.raises(ValueError, match=r"attempt\.json is damaged \((setting_)?noise\."):
            read_record(tmp_path / "attempt.json", Attempt)
