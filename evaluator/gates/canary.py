"""The canary: a tiny model around the operator is trained on tokens that nothing can predict."""

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluator.gates.probe import Probe, Rejected
from evaluator.operator import OperatorProcess

VOCABULARY, ROWS, TOKENS, STEPS, SCORED = 16, 16, 32, 70, 15


def canary(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """No honest causal operator beats chance on random tokens; rows offset by one against each other are the bait."""
    width = probe.num_heads * 16
    weights = _weights(probe, operator, width)
    moments = {n: (torch.zeros_like(w), torch.zeros_like(w)) for n, w in weights.items()}
    hits = []
    for step in range(STEPS):
        tokens = torch.randint(VOCABULARY, (TOKENS + ROWS,), generator=probe.rng)
        if step % 2:
            rows = tokens.unfold(0, TOKENS + 1, 1)[:ROWS]  # row b + 1 shows what row b is to predict
        else:
            rows = torch.randint(VOCABULARY, (ROWS, TOKENS + 1), generator=probe.rng)
        hits.append(_step(operator, probe, weights, rows))
        _adam(weights, moments, step + 1)
    accuracy = sum(hits[-SCORED:]) / SCORED
    if accuracy > 1 / VOCABULARY + 0.03:
        raise Rejected(
            f"random tokens are predicted with accuracy {accuracy:.3f}, chance is {1 / VOCABULARY:.3f}: the operator sees "
            "later tokens or other rows"
        )
    return {"canary": round(accuracy, 4)}


def _weights(probe: Probe, operator: OperatorProcess, width: int) -> dict[str, Tensor]:
    declared = probe.described(operator, probe.num_heads, 16)
    sizes = {n: w * probe.num_heads for n, w in declared.projections.items() if n != "output_gate"}
    sizes |= {"q": width, "k": width, "v": width, "beta": probe.num_heads}
    drawn = {f"to_{n}": probe.randn(VOCABULARY, w) for n, w in sizes.items()}
    drawn |= {f"own_{n}": p.clone() for n, p in declared.parameters.items()}
    drawn["out"] = probe.randn(width, VOCABULARY) * width**-0.5
    return {n: w.requires_grad_() for n, w in drawn.items()}


def _adam(weights: dict[str, Tensor], moments: dict[str, tuple[Tensor, Tensor]], step: int, lr: float = 0.02) -> None:
    """One step of Adam as in Kingma and Ba; torch.optim would import a compiler, for two seconds."""
    for name, w in weights.items():
        if w.grad is None:
            continue
        mean, square = moments[name]
        mean.lerp_(w.grad, 0.1)
        square.lerp_(w.grad.square(), 0.001)
        w.data -= lr * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        w.grad = None


def _step(operator: OperatorProcess, probe: Probe, weights: dict[str, Tensor], rows: Tensor) -> float:
    """Gradients of one step of training; the share of next tokens that were predicted before it."""
    inputs = {
        n.removeprefix("to_"): _lookup(w, rows[:, :-1], n, probe) for n, w in weights.items() if n.startswith("to_")
    }
    inputs |= {n.removeprefix("own_"): w.expand(ROWS, *w.shape) for n, w in weights.items() if n.startswith("own_")}
    given = {n: x.detach().contiguous() for n, x in inputs.items()}
    o = operator.forward(given, chunk_size=probe.chunk_size, grad=True).requires_grad_()
    normed = F.layer_norm(o.transpose(1, 2).flatten(2), (weights["out"].shape[0],))
    logits, targets = normed @ weights["out"], rows[:, 1:]
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    assert o.grad is not None
    _, grads = operator.vjp(given, o.grad, chunk_size=probe.chunk_size)
    parts = [(inputs[n] * g).sum() for n, g in grads.items() if g is not None and inputs[n].requires_grad]
    torch.stack(parts).sum().backward()  # given gradients, torch would first import sympy for 0.6 s
    return float((logits.argmax(-1) == targets).float().mean())


def _lookup(table: Tensor, tokens: Tensor, name: str, probe: Probe) -> Tensor:
    x = table[tokens].unflatten(-1, (probe.num_heads, -1)).transpose(1, 2)
    if name == "to_beta":
        return torch.sigmoid(x.squeeze(-1))
    return F.silu(x) if name in ("to_q", "to_k", "to_v") else x
