"""From what training reported of one setting to the rows that are kept: the best run of every seed is audited."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from evaluator import audit
from evaluator.job import Job, architecture_for
from evaluator.operator import OperatorProcess
from evaluator.protocol import Setting
from evaluator.results import Row
from evaluator.trainer import Outcome


def audited(job: Job, setting: Setting, outcomes: Sequence[Outcome], judge: OperatorProcess) -> list[Row]:
    """Rows of all runs; the best run of every seed, which alone enters the score, is audited."""
    rows = [_row(setting, outcome, i) for outcome in outcomes for i in range(len(outcome.runs))]
    weights = [w for outcome in outcomes for w in outcome.weights]
    rng = np.random.default_rng()  # unknown to the process that trained
    arch = architecture_for(job, setting, judge)
    for seed in job.seeds:
        best = max((i for i, r in enumerate(rows) if r.seed == seed), key=lambda i: _or_less(rows[i].accuracy))
        if math.isfinite(rows[best].accuracy):
            claimed = rows[best].accuracy
            found = audit.audit(weights[best], claimed, setting, job.protocol, seed, arch, judge, job.device, rng)
            rows[best] = dataclasses.replace(
                rows[best], audited=1, accuracy=found.accuracy, loss=found.loss, fresh_accuracy=found.fresh_accuracy
            )
    return rows


def _or_less(accuracy: float) -> float:
    return accuracy if math.isfinite(accuracy) else -1.0


def _row(setting: Setting, outcome: Outcome, i: int) -> Row:
    run, facts = outcome.runs[i], outcome.facts
    perplexity = facts["perplexity"][i]
    loss = math.log(perplexity) if 0 < perplexity < math.inf else math.nan
    return Row(
        task=setting.task, setting=setting.name, lr=run.lr, weight_decay=run.weight_decay, seed=run.seed,
        accuracy=facts["accuracy"][i], loss=loss, epochs=facts["epochs"][i], seconds=facts["seconds"] / len(outcome.runs),
        audited=0, reported_accuracy=facts["accuracy"][i], last_accuracy=facts["last_accuracy"][i],
        fresh_accuracy=math.nan, best_epoch=facts["best_epoch"][i], setup_seconds=facts["setup_seconds"],
        operator=facts["operator"],
    )
