"""The audit decides: what the gates can't ask for, the scored calls themselves are held against."""

import dataclasses

import numpy as np
import pytest
import torch

from evaluator import audit, sandbox
from evaluator.model import architecture, initial_weights
from evaluator.operator import OperatorProcess
from evaluator.protocol import BASELINES, PROTOCOLS

CPU = torch.device("cpu")
PROTOCOL = dataclasses.replace(PROTOCOLS["mad"], width=32, head_dim=16)
SHORT = {"num_train_examples": 256, "num_test_examples": 256}
HONEST = """
import torch
import torch.nn.functional as F


def mixed(q, k, v, beta):
    weights = F.normalize(k, dim=-1) * beta[..., None]
    return (weights * v).cumsum(2) * q


def delta_rule(q, k, v, beta, *, chunk_size):
    return mixed(q, k, v, beta)
"""
LATER = "torch.cat([v[:, :, 1:], v[:, :, -1:]], 2)"
CHEATS = {
    "looks ahead at the batch that is scored": f"2 * {LATER} if q.shape[0] == 128 else 0.0",
    "looks ahead for some queries": f"{LATER} * (q[..., :1] < 0)",
    "reads the next row of a full batch": "v.roll(1, 0) if q.shape[0] > 100 else 0.0",
}


def judged(source, task="in-context-recall", claimed=0.0):
    """The audit of a model with random weights."""
    setting = dataclasses.replace(BASELINES[task], **SHORT)
    with OperatorProcess({"naive": source}, head_dim=16, walls=sandbox.choose("auto"), timeout=60, threads=1) as process:
        arch = architecture(setting, PROTOCOL, {}, {})
        weights = torch.from_numpy(initial_weights(arch, "a stream", lambda stream: {}))
        return audit.audit(weights, claimed, setting, PROTOCOL, 0, arch, process, CPU, np.random.default_rng())


@pytest.mark.parametrize("task", ["in-context-recall", "compression", "selective-copying"])
def test_an_honest_operator_is_recorded(task, monkeypatch):
    monkeypatch.setattr(audit, "STEERING_TOLERANCE", 1.0)  # the claim is another test's subject
    assert 0 <= judged(HONEST, task, 0.0).accuracy < 0.3


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_that_waits_for_the_audit_is_seen_there(cheat, monkeypatch):
    monkeypatch.setattr(audit, "STEERING_TOLERANCE", 1.0)
    source = HONEST.replace("return mixed(q, k, v, beta)", f"return mixed(q, k, v, beta) + ({CHEATS[cheat]})")
    with pytest.raises(audit.AuditError, match="looks ahead or into other rows"):
        judged(source)


def test_a_claim_that_the_weights_do_not_keep_is_no_score():
    with pytest.raises(audit.AuditError, match=r"reported an accuracy of 0.9000, the audit of its weights found 0.0"):
        judged(HONEST, claimed=0.9)
