"""Gates on what else an output may not depend on: other rows and heads, how many there are, the length of the whole."""

import torch
from torch import Tensor

from evaluator.gates.causality import PROTOCOL, cut_off, elsewhere
from evaluator.gates.probe import ROOM, Probe, Rejected, Tensors, apart, loudness, normed, row, size
from evaluator.gates.rounding import another_shape, is_noise, little, stretched
from evaluator.operator import OperatorError, OperatorProcess

PACKED = 768  # rows that the trainer hands over at once
FEW = 8
"""Rows that stand for many; one in so many may be off, as by luck rounding can decide a top-k."""
OFF, CANCELLED = 0.1, 1e-3
"""Of a gradient's norm, as rounding at another shape is far less, and of the largest one's, which is left of one that cancels."""
MEAN = 1e-5
"""Of a gradient's size in a batch of 128 rows of 128 tokens, of which a loss is the mean."""
SECONDS = 4.0
"""Of a processor for a backward pass that many rows may take by the measure of a few."""


def batches(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """Rows and time again at many batch sizes, up to the packed trainer's: code can ask for its batch."""
    seen: list[str] = []
    began = operator.clock()
    wide, narrow = probe.head_dim, probe.small_dim
    always = [(PACKED, 32, True, wide)]  # the trainer's own, with parameters as declared
    plan = [(33, PROTOCOL[probe.randint(4, 5)], wide), (33, PROTOCOL[probe.randint(6, 7)], narrow), (probe.randint(200, 300), 128, narrow)]
    sizes = (*range(1, 18), 24, 31, 32, 33, 48, 63, 64, 65, 96, 100, 127, 128, 192, 256, 384, 512, 640, PACKED)
    plan += [*((B, 5, wide) for B in sizes), *((B, 32, wide) for B in (128, 256, 384))]
    for B, T, calm, K in [*always, *((B, T, B % 3 > 0, K) for B, T, K in plan)]:
        if operator.clock() - began > 1.2 and len(seen) >= len(always):
            break
        if T == 5:
            x, changed, kept = probe.varied(operator, B, T, K, probe.dtype)
            o = elsewhere(operator, probe, x, changed, kept, grad=False)
        else:
            x = probe.inputs(operator, B, T, K=K, calm=calm)
            o = cut_off(operator, probe, x, probe.cuts(x), 30.0, others=torch.rand(B, generator=probe.rng) < 0.5)
        if all(_not_alone(operator, probe, x, o) for _ in range(3)):  # by luck rounding can decide a top-k
            raise Rejected(f"a row alone gives another output than among {B} rows (T = {T}); rows are independent")
        seen.append(f"{B}x{T}")
    for B, T in ((33, PROTOCOL[probe.randint(4, 7)]), (PACKED, 64)):
        among_many(operator, probe, affordable(operator, probe, B, T), T)
        seen.append(f"{B}x{T}")
    return {"batches": len(seen)}


def affordable(operator: OperatorProcess, probe: Probe, B: int, T: int) -> int:
    """Rows, up to B, whose backward pass takes neither SECONDS nor ROOM, by the measure of a few."""
    few, began = probe.inputs(operator, FEW, T), operator.clock()
    operator.vjp(few, torch.ones_like(few["v"]), chunk_size=probe.chunk_size)
    seconds = operator.clock() - began
    kept = operator.kept_bytes(few, chunk_size=probe.chunk_size)
    return max(1, min(B, int(FEW * min(SECONDS / max(seconds, 1e-3), ROOM / kept))))


def among_many(operator: OperatorProcess, probe: Probe, B: int, T: int) -> None:
    """Rows among B are what they are among a few, in outputs and in gradients from the later half to the earlier. Two draws must fail.

    Many rows and many tokens together are the trainer's alone: by them code could know that it is trained.
    """
    try:
        if told := _among_many(operator, probe, B, T) and _among_many(operator, probe, B, T):
            raise Rejected(f"rows are not independent: {told} are others among {B} rows than among {FEW} (T = {T})")
    except OperatorError as error:
        if error.kind != "memory" or B < 2 * FEW:
            raise
        among_many(operator, probe, B // 2, T)


def _among_many(operator: OperatorProcess, probe: Probe, B: int, T: int) -> str | None:
    """What differs in more than one of FEW rows."""
    x, C = probe.inputs(operator, FEW, T), probe.chunk_size
    grad_o = probe.randn(*x["v"].shape, dtype=x["v"].dtype)
    grad_o[:, :, : T // 2] = 0
    which = torch.randint(FEW, (B,), generator=probe.rng)
    o, grads = operator.vjp(x, grad_o, chunk_size=C)
    if not all(y.isfinite().all() for y in (o, *grads.values()) if y is not None):
        return None  # `growth` tells what overflows
    many, found = operator.vjp(row(x, which), grad_o[which], chunk_size=C, timeout=3 * operator.timeout)

    def differ(now: Tensor, then: Tensor, allowed: Tensor, order: float) -> bool:
        parts = zip(now.split(64), which.split(64), strict=True)
        moved = torch.cat([torch.linalg.vector_norm((part.float() - then[at]).flatten(1), order, 1) for part, at in parts])
        return float((moved <= allowed[which]).float().mean()) < 1 - 1.5 / FEW

    rounding = torch.full((FEW,), another_shape(operator, probe, x, o) * size(normed(o)))
    if differ(many / loudness(many.float()), o / loudness(o.float()), rounding, torch.inf):
        return "outputs"
    few, among = ({n: g[:, :, : T // 2] if n in probe.over_time(x) else g for n, g in of.items() if g is not None} for of in (grads, found))
    norms = {n: torch.linalg.vector_norm(g.float().flatten(1), 2, 1) for n, g in few.items()}
    nothing = CANCELLED * torch.stack([*norms.values()]).amax(0)
    for n, g in few.items():
        if n not in among or differ(among[n], g.float(), OFF * norms[n] + nothing, 2):
            return f"gradients of outputs in the later half to {n} in the earlier"
    return None


def _not_alone(operator: OperatorProcess, probe: Probe, x: Tensors, o: Tensor) -> bool:
    """Whether some row's output is another where it is called by itself."""
    at = probe.randint(0, len(o) - 1)
    one = row(x, slice(at, at + 1))
    alone = operator.forward(one, chunk_size=probe.chunk_size)
    moved = apart(o[at : at + 1], alone)
    return moved > 0 and moved > another_shape(operator, probe, one, alone)


def prefix(operator: OperatorProcess, probe: Probe) -> None:
    """f(x[:t]) = f(x)[:t]: an output may not know how long the sequence is. Three draws must fail, as sums may round.

    At any length and at the trainer's own, so that what was seen at others holds there.
    """
    drawn = probe.randint(70, 180), probe.randint(200, 500), probe.randint(600, 1024)
    began, allowed = operator.clock(), 4.0
    for T in (*drawn, *PROTOCOL):
        if operator.clock() - began > allowed:  # a slow operator is asked at those that come first
            return
        # What is long is held to what the other gates have seen; once to what the last of a long prefix may know, too.
        for calm, longest in ((False, min(T - 1, 180)), (True, min(T - 1, 180)), (False, T - 1)):
            found = [_prefix(operator, probe, T, probe.randint(min(T // 2, 120), longest), calm)]
            while found[-1] and len(found) < 3:
                found.append(_prefix(operator, probe, T, probe.randint(min(T // 2, 120), longest), calm))
            if found[-1]:
                raise Rejected(f"outputs depend on the total length: a prefix alone gives others, by {found[-1]}")


def _prefix(operator: OperatorProcess, probe: Probe, T: int, cut: int, calm: bool) -> str | None:
    x = probe.inputs(operator, 1, T, calm=calm)
    part = probe.until(x, cut)
    whole = operator.forward(x, chunk_size=probe.chunk_size)[:, :, :cut]
    alone = operator.forward(part, chunk_size=probe.chunk_size)
    moved = apart(whole, alone)
    if not moved or moved <= (allowed := another_shape(operator, probe, part, alone)):
        return None
    return f"{moved:.3g} at token {cut} of {T}, where rounding explains {allowed:.2g}"


def backward(operator: OperatorProcess, probe: Probe) -> None:
    """The gradient of outputs of a row and head before a cut to inputs after it, of other rows and heads, is zero."""
    for T in (probe.randint(33, 64), probe.randint(65, 130), 128, probe.randint(260, 520)):
        for calm, trained in ((False, False), (True, False), (False, True)):
            _backward(operator, probe, 2, T, probe.dtype, calm, trained)
    for T in (probe.randint(33, 130), probe.randint(260, 520)):
        for trained in (False, True):
            _backward(operator, probe, 2, T, probe.dtypes[-1], trained=trained)
    began, few = operator.clock(), 24
    _backward(operator, probe, few, 5, probe.dtype)
    affordable = int(few * operator.timeout / 4 / max(operator.clock() - began, 1e-3))
    _backward(operator, probe, min(PACKED, max(few, affordable)), 5, probe.dtype)


def _backward(
    operator: OperatorProcess, probe: Probe, B: int, T: int, dtype: torch.dtype, calm: bool = False, trained: bool = False
) -> None:
    """Where it is `trained` the sizes are those of training, in which gradients are those of a mean over a batch of tokens."""
    cut, at, head = probe.randint(1, T - 1), probe.randint(0, B - 1), probe.randint(0, probe.num_heads - 1)
    x = probe.inputs(operator, B, T, dtype=dtype, calm=calm)
    x = probe.trained(x) if trained else x
    grad_o = torch.zeros(B, probe.num_heads, T, probe.head_dim, dtype=dtype)
    grad_o[at, head, :cut] = probe.randn(cut, probe.head_dim, dtype=dtype) * (MEAN if trained else 1.0)
    over_time, asked = probe.over_time(x), grad_o.any(3)

    def leaks(number: int = 0) -> dict[str, Tensor]:
        """Gradients to what these outputs may not depend on, over the largest of all."""
        _, grads = operator.vjp(stretched(x, number), grad_o, chunk_size=probe.chunk_size)
        free = {n: ~asked if n in over_time else ~asked.flatten(1).any(1) for n in x}
        found = {n: g.double() for n, g in grads.items() if g is not None}
        if overflown := [n for n, g in found.items() if not g.isfinite().all()]:
            raise Rejected(f"gradients to {', '.join(overflown)} are not finite (B = {B}, T = {T})")
        largest = max(map(size, found.values()), default=1.0)
        return {n: (g / largest)[free[n]] for n, g in found.items()}

    found = leaks()
    name = max(found, key=lambda n: size(found[n]), default="")
    if not name or size(found[name]) <= 4e-7 or (size(found[name]) <= little(T) and is_noise(lambda number: leaks(number)[name], 4e-7, 1.0)):
        return
    raise Rejected(
        f"the gradient of outputs before token {cut} of {T} in row {at} and head {head} to {name} of later tokens or of other rows "
        f"or heads is {size(found[name]):.3g} of the largest, not zero (B = {B})"
    )


def rows(operator: OperatorProcess, probe: Probe) -> None:
    """A row's output does not depend on the other rows: other values, another order, sorted, equal or nearly equal."""
    for B, T in ((6, probe.randint(34, 90)), (24, probe.randint(3, 34))):
        _rows(operator, probe, B, T)
    x = probe.inputs(operator, 3, probe.randint(300, 900))  # `state` asks with equal rows
    o, now = (operator.forward(given, chunk_size=probe.chunk_size)[0] for given in (x, row(x, torch.tensor([0, 0, 0]))))
    if apart(now, o) > 4e-7:
        raise Rejected(f"rows are not independent: with others equal to it a row's output moves by {apart(now, o):.3g} of the largest")


def _rows(operator: OperatorProcess, probe: Probe, B: int, T: int) -> None:
    x = probe.inputs(operator, B, T)
    o = operator.forward(x, chunk_size=probe.chunk_size)
    order = torch.randperm(B, generator=probe.rng)
    by_beta = x["beta"].sum((1, 2)).argsort()
    for index, what in ((order, "permuted"), (by_beta, "sorted"), (torch.zeros(B, dtype=torch.long), "all equal")):
        moved = apart(operator.forward(row(x, index), chunk_size=probe.chunk_size), o[index])
        if moved > 1e-2:  # sums of another order may round; what is below shows to the bit further down
            raise Rejected(f"rows are not independent: with the rows {what} a row's output moves by {moved:.3g} of the largest")
    near = probe.legal({n: v[:1] * (1 + 1e-4 * probe.randn(*v.expand(B, *v.shape[1:]).shape)) for n, v in x.items()})
    for batch, magnitude in ((x, 1.0), (x, 300.0), (near, 1.0)):
        o = operator.forward(batch, chunk_size=probe.chunk_size)
        keep = probe.randint(0, B - 1)
        mask = (torch.arange(B) != keep)[:, None, None].expand(B, probe.num_heads, T)
        changed = probe.replaced(batch, mask, magnitude)
        others = torch.arange(B) != keep
        for name in changed.keys() - set(probe.over_time(x)):
            changed[name] = torch.where(others.view(-1, *[1] * (x[name].dim() - 1)), changed[name] + 0.3, changed[name])
        now = operator.forward(changed, chunk_size=probe.chunk_size)
        if (moved := apart(now[keep], o[keep])) > 4e-7:
            raise Rejected(f"rows are not independent: changing the others moves row {keep} by {moved:.3g} of the largest")


def heads(operator: OperatorProcess, probe: Probe) -> None:
    """A head's output does not depend on the other heads."""
    short, long = (34, 90), (128, 300)
    for H, dtype, (shortest, longest) in (
        (probe.num_heads, probe.dtype, short), (4, probe.dtype, short),
        (probe.num_heads, probe.dtypes[-1], short), (probe.num_heads, probe.dtypes[-1], long),
    ):  # fmt: skip
        T = probe.randint(shortest, longest)
        K = probe.head_dim if probe.num_heads == H else probe.small_dim
        x = probe.inputs(operator, 2, T, heads=H, K=K, dtype=dtype)
        o = operator.forward(x, chunk_size=probe.chunk_size)
        for keep in range(H):
            mask = (torch.arange(H) != keep)[None, :, None].expand(2, H, T)
            now = operator.forward(probe.replaced(x, mask, 50.0), chunk_size=probe.chunk_size)
            if (moved := apart(now[:, keep], o[:, keep])) > 4e-7:
                raise Rejected(f"heads are not independent: changing the others moves head {keep} of {H} by {moved:.3g} of the largest")
