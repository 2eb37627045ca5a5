"""Gates on what an operator carries from the past into the future: how much, and that it does not grow."""

import torch
from torch import Tensor

from evaluator.gates.independence import tolerance
from evaluator.gates.probe import Probe, Rejected, Tensors, gap, size
from evaluator.operator import OperatorProcess

THRESHOLD = {"float64": 1e-9, "float32": 3e-6, "lower": 3e-2}
"""Singular values below this part of the largest are rounding."""
ROWS = 96
"""Rows of a Jacobian that are asked for at once; more would only take more memory."""


def chunk(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """chunk_size is part of the protocol: an operator whose function has chunks uses the ones it is given."""
    x = probe.inputs(operator, 2, 256)
    o = {c: operator.forward(x, chunk_size=c) for c in (8, 16, 32, 64)}
    allowed = tolerance(operator, probe, x, o[32])
    invariant = all(gap(o[c], o[32]) <= allowed for c in o)
    start = {n: v[:, :, :32].contiguous() if n in probe.over_time(x) else v for n, v in x.items()}
    early = {c: operator.forward(start, chunk_size=c) for c in (4, 8, 32)}
    allowed = tolerance(operator, probe, start, early[32])
    same = [c for c in (4, 8) if gap(early[c], early[32]) <= allowed]
    if not invariant and _wider(operator, probe, x, o[32]):
        raise Rejected(
            "the first 64 tokens are the same with chunk_size 32 and 64, and 32 empty tokens in front change what follows "
            "while a larger number of them does not: chunks are wider than chunk_size"
        )
    if not invariant and same:
        raise Rejected(
            f"the first 32 tokens are the same with chunk_size {same[0]} and 32 and later ones are not: chunks are wider than "
            "chunk_size; use chunk_size as it is given"
        )
    return {"chunk_invariant": invariant}


def _wider(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor) -> bool:
    """Whether chunks of 32 act as chunks of 64 or more: o, the outputs for x, then begins anew every so many tokens."""
    over_time = probe.over_time(x)
    start = {n: v[:, :, :64].contiguous() if n in over_time else v for n, v in x.items()}
    first, second = (operator.forward(start, chunk_size=c) for c in (32, 64))
    if gap(first, second) > tolerance(operator, probe, start, first):
        return False

    def unmoved_by(count: int) -> bool:
        """By `count` tokens of nothing in front."""
        empty = {n: torch.zeros(*v.shape[:2], count, *v.shape[3:], dtype=v.dtype) for n, v in x.items() if n in over_time}
        later = {n: torch.cat((empty[n], v), 2) if n in over_time else v for n, v in x.items()}
        return gap(operator.forward(later, chunk_size=32)[:, :, count:], o) <= tolerance(operator, probe, x, o)

    return not unmoved_by(32) and any(unmoved_by(count) for count in (64, 128, 256))


def state(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The rank of the map from past inputs to future outputs is the state: at most 4 K V + chunk_size (K + V), not growing.

    Small heads make it measurable. A window or cache shows at K = V = 4, an expanded key at K = V = 10. Where the
    outputs are the same for every chunk_size, nothing is allowed for a chunk.
    """
    invariant = bool(probe.properties.get("chunk_invariant"))
    found = {}
    quick = probe.properties["milliseconds_a_token"] < 1
    for dim, C, pasts, future in ((4, 8, (27, 54, 108, probe.randint(500, 800)), 60), (10, 4, (34,), 56)):
        allowed = 4 * dim * dim + (1 if invariant else C) * 2 * dim
        zero, ranks = _zero(operator, probe, dim, C, pasts[0]), []
        for past in pasts if quick else pasts[:3]:
            most = allowed + 24 if past < 200 else ROWS  # far back one request must do, which still shows growth
            values = _singular_values(operator, probe, dim, C, past - past % C + C // 2, future, most)
            ranks.append(int((values > zero * values[0]).sum()))
            if ranks[-1] > allowed:
                break
        told = ", ".join(f"{r} after {p} tokens" for r, p in zip(ranks, pasts, strict=False))
        if max(ranks) > allowed:
            raise Rejected(
                f"the state is too large: with K = V = {dim}, chunk_size = {C} its rank is {told}, at most {allowed} is allowed"
            )
        if max(ranks) > 1.25 * ranks[0] + dim * dim:
            raise Rejected(f"the state grows with the past: with K = V = {dim}, chunk_size = {C} its rank is {told}")
        found[f"{dim}x{dim}"] = {"rank": max(ranks), "allowed": allowed}
    _where_training_leads(operator, probe, 8)
    return {"state": found}


def _where_training_leads(operator: OperatorProcess, probe: Probe, C: int) -> None:
    """A cache may wait for learned parameters far from where they began, on either side, or for large inputs."""
    dim, past = 4, 108
    allowed = 4 * dim * dim + (1 if probe.properties.get("chunk_invariant") else C) * 2 * dim
    for far in (1.0, -1.0):
        zero = _zero(operator, probe, dim, C, past, far)
        values = _singular_values(operator, probe, dim, C, past, 150, allowed + 24, far)
        rank = int((values > zero * values[0]).sum())
        if rank > allowed:
            raise Rejected(
                f"the state is too large where inputs and learned parameters are as training may make them: with K = V = {dim}, "
                f"chunk_size = {C} its rank is {rank}, at most {allowed} is allowed"
            )


def state_in_full(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """The state again at the trainer's own heads and chunk_size, so that no size is the exception: a value channel's part.

    Its part is 4 K + chunk_size (K + V) / V. All channels are asked at once where one map serves them all, else one of
    them. Where channels share their parts, which small heads then show, or minutes would pass, nothing is told.
    """
    C = 1 if probe.properties.get("chunk_invariant") else probe.chunk_size
    ranks = {}
    for dim, every in ((probe.head_dim, True), (probe.head_dim, False), (16, False)):
        allowed = 4 * dim + 2 * C
        rank, alike = _of_channels(operator, probe, dim, allowed + 8, every)
        if rank is None:
            return {"state_of_a_channel": None}
        ranks[dim] = rank
        if rank <= allowed or alike:
            break
    too_large = ranks[probe.head_dim] > 4 * probe.head_dim + 2 * C
    if too_large and (alike or ranks[dim] <= allowed):
        raise Rejected(
            f"the state is larger than small heads show: with K = V = {probe.head_dim}, chunk_size = {probe.chunk_size} one value "
            f"channel alone has a rank of more than its part, which is {4 * probe.head_dim + 2 * C}"
        )
    return {"state_of_a_channel": None if too_large else ranks[probe.head_dim]}


def _of_channels(operator: OperatorProcess, probe: Probe, dim: int, count: int, every: bool) -> tuple[int | None, bool]:
    """Rank, up to `count`, of d(later outputs) / d(earlier values) in a channel of the first head, None where it is slow.

    With `every` a gradient serves all channels at once; the second answer is whether they have one map.
    """
    past = count + count // 4 + probe.chunk_size // 2
    x, channel = probe.inputs(operator, 1, past + count, K=dim), probe.randint(0, dim - 1)
    x["beta"] = x["beta"] * 0.8 + 0.1
    channels = slice(None) if every else slice(channel, channel + 1)
    kept = operator.measure(x, chunk_size=probe.chunk_size, repeat=1, memory=True)[1]
    size = max(2, min(-(-count // dim) + 2 if every else 24, int(1.5e9 / max(kept, 1))))
    found, began = list[Tensor](), operator.clock()
    while (done := sum(len(part) * part.shape[2] for part in found)) < count:
        grad_o = torch.zeros(size, probe.num_heads, past + count, dim)
        grad_o[:, 0, past:, channels] = probe.randn(*grad_o[:, 0, past:, channels].shape)
        if not done:  # one answer for all channels, and the same but for a factor
            grad_o[0, 0, past:, channels] = grad_o[0, 0, past:, channel, None]
            grad_o[1] = 1.37 * grad_o[0]
        rows = {n: v.expand(size, *v.shape[1:]).contiguous() for n, v in x.items()}
        _, grads = operator.vjp(rows, grad_o, chunk_size=probe.chunk_size, timeout=3 * operator.timeout)
        if (grad := grads["v"]) is None:
            return None, False
        found.append(grad[:, 0, :past, channels].double())
        if not bool(found[-1].isfinite().all()):
            raise Rejected(f"gradients to v are not finite at K = V = {dim}, T = {past + count}")
        if (operator.clock() - began) * count / (done + len(found[-1]) * found[-1].shape[2]) > 7:
            return None, False
    first, again = found[0][:2]
    scale = float(first.norm().clamp_min(1e-30))
    alike = every and float((first - first.mean(1, keepdim=True)).norm()) <= 1e-3 * scale
    zero = max(THRESHOLD["float32"], min(4 * float((again / 1.37 - first).norm()) / scale, THRESHOLD["lower"]))
    values = torch.linalg.svdvals(torch.cat([part.mT.flatten(0, 1) for part in found]))
    return int((values > zero * values[0]).sum()), alike


def _zero(operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, far: float | None = None) -> float:
    """Below which part of the largest a singular value is rounding, measured on rows that differ by a factor alone.

    The precision class doesn't tell it where an operator mixes precisions.
    """
    x, combined = _ending(operator, probe, dim, past, C, far)
    factors = 1 + torch.rand(ROWS, generator=probe.rng, dtype=combined.dtype)
    once = _to_the_past(operator, probe, x, combined, C, past).double()
    again = _to_the_past(operator, probe, x, combined * factors.view(-1, 1, 1, 1), C, past) / factors[:, None]
    rounding = 4 * torch.linalg.matrix_norm(again - once, 2) / torch.linalg.matrix_norm(once, 2).clamp_min(1e-30)
    return max(THRESHOLD[probe.precision], min(float(rounding), THRESHOLD["lower"]))


def _ending(
    operator: OperatorProcess, probe: Probe, dim: int, past: int, future: int, far: float | None = None
) -> tuple[Tensors, Tensor]:
    """Inputs of one row, and ROWS random combinations of the outputs of its first head after `past`.

    `far` moves learned parameters that way; each token's keys and values then have a magnitude of their own, or the rest.
    """
    dtype = torch.float64 if probe.precision == "float64" else torch.float32
    x = probe.inputs(operator, 1, past + future, K=dim, dtype=dtype)
    x["beta"] = x["beta"] * 0.8 + 0.1
    if far is not None:
        for name in (n for n in x if n != "beta"):
            sizes = torch.rand(x["beta"].shape, generator=probe.rng, dtype=dtype).unsqueeze(-1)
            if name not in probe.over_time(x):
                x[name] = x[name] + 6 * far
            elif (name in ("k", "v")) == (far < 0):  # large keys hide the others, so not both at once
                x[name] = x[name] * 10 ** (2 * sizes)
    return x, _combined(probe, dim, past, future, dtype)


def _combined(probe: Probe, dim: int, past: int, future: int, dtype: torch.dtype) -> Tensor:
    grad_o = torch.zeros(ROWS, probe.num_heads, past + future, dim, dtype=dtype)
    grad_o[:, 0, past:] = probe.randn(ROWS, future, dim, dtype=dtype)
    return grad_o


def _singular_values(
    operator: OperatorProcess, probe: Probe, dim: int, C: int, past: int, future: int, most: int, far: float | None = None
) -> Tensor:
    """Of d(outputs after `past`) / d(inputs before it) of one head, from `most` random combinations of outputs."""
    x, combined = _ending(operator, probe, dim, past, future, far)
    jacobian = [_to_the_past(operator, probe, x, combined, C, past)]
    for _ in range(-(-min(most, future * dim) // ROWS) - 1):
        jacobian.append(_to_the_past(operator, probe, x, _combined(probe, dim, past, future, combined.dtype), C, past))
    values: Tensor = torch.linalg.svdvals(torch.cat(jacobian).double())
    return values


def _to_the_past(operator: OperatorProcess, probe: Probe, x: Tensors, grad_o: Tensor, C: int, past: int) -> Tensor:
    """Gradients of each row of grad_o to the inputs of the first head before `past`, [rows, inputs]."""
    rows = {n: v.expand(len(grad_o), *v.shape[1:]).contiguous() for n, v in x.items()}
    _, grads = operator.vjp(rows, grad_o, chunk_size=C, timeout=3 * operator.timeout)
    found = [g if (g := grads[n]) is not None else torch.zeros_like(rows[n]) for n in probe.over_time(x)]
    return torch.cat([g[:, 0, :past].flatten(1) for g in found], 1)


def recurrence(operator: OperatorProcess, probe: Probe) -> dict[str, object] | None:
    """A recurrent form, where there is one, says the same token by token with a state of constant size."""
    if not operator.description.has_recurrence:
        return None
    T = 2 * probe.chunk_size + 9
    x = probe.inputs(operator, 2, T)
    grad_o = probe.randn(2, probe.num_heads, T, probe.head_dim)
    found = operator.recurrence(x, grad_o)
    o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
    if gap(found.o, o) > tolerance(operator, probe, x, o):
        raise Rejected(
            f"recurrence and delta_rule differ by {gap(found.o, o):.3g} in outputs of magnitude {size(o):.3g}"
        )
    for name, grad in grads.items():
        other = found.grads[name]
        if grad is not None and (other is None or _far(grad, other, probe)):
            raise Rejected(f"recurrence and delta_rule differ in the gradient to {name}")
    _constant(found.state_sizes, probe)
    return {"recurrent_state": found.state_sizes[-1]}


def _far(grad: Tensor, other: Tensor, probe: Probe) -> bool:
    distance = float((grad - other).double().norm())
    return distance > {"float64": 1e-3, "float32": 1e-3, "lower": 0.1}[probe.precision] * float(grad.double().norm())


def _constant(sizes: list[int], probe: Probe) -> None:
    limit = 4 * probe.head_dim**2 + probe.chunk_size * 2 * probe.head_dim
    if len(set(sizes)) > 1 or sizes[-1] > limit:
        raise Rejected(
            f"the state of recurrence has {sizes[0]} to {max(sizes)} numbers a head; it must be constant, at most {limit}"
        )


def forms(operator: OperatorProcess, probe: Probe, other: OperatorProcess) -> dict[str, object]:
    """A kernel says the same as naive.py, in outputs and gradients, at every kind of length, also on poisoned memory.

    In bfloat16, as it is trained, and at two lengths in float32, whose kernels take long to compile.
    """
    worst = 0.0
    for T in (1, 31, 32, 33, 127, 128, probe.randint(129, 300)):
        for dtype in (torch.float32, torch.bfloat16) if T in (33, 127) else (torch.bfloat16,):
            x = probe.inputs(operator, 3, T, dtype=dtype)
            grad_o = probe.randn(3, probe.num_heads, T, probe.head_dim, dtype=dtype)
            o, grads = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
            theirs, their_grads = other.vjp(x, grad_o, chunk_size=probe.chunk_size)
            _same_output(o, theirs, T, dtype)
            _same_gradients(grads, their_grads, T, dtype)
            _same_output(theirs, other.forward(x, chunk_size=probe.chunk_size, poison=True), T, dtype)
            worst = max(worst, gap(o, theirs) / size(o))
    return {"forms_differ": worst}


def _same_output(o: Tensor, other: Tensor, T: int, dtype: torch.dtype) -> None:
    if gap(o, other) > {torch.float32: 5e-3, torch.bfloat16: 4e-2}[dtype] * size(o):  # TF32 inside is allowed
        raise Rejected(
            f"triton.py and naive.py differ by {gap(o, other):.3g} in outputs of magnitude {size(o):.3g} at T = {T}, {dtype}"
        )


def _same_gradients(
    grads: Tensors | dict[str, Tensor | None], other: dict[str, Tensor | None], T: int, dtype: torch.dtype
) -> None:
    for name, grad in grads.items():
        theirs = other[name]
        if grad is None or not bool(grad.any()):
            continue
        if theirs is None:
            raise Rejected(f"triton.py gives no gradient to {name}")
        distance = float((grad - theirs).double().norm() / grad.double().norm())
        if not distance <= {torch.float32: 2e-2, torch.bfloat16: 6e-2}[dtype]:
            raise Rejected(
                f"triton.py and naive.py differ by {distance:.3g} of its norm in the gradient to {name} at T = {T}, {dtype}"
            )
