"""Gates on being one function: in every type, batch and process, on every device, and at every call."""

import math

import torch
from torch import Tensor

from evaluator.gates.causality import cut_off
from evaluator.gates.independence import affordable, among_many
from evaluator.gates.precision import takes_float64
from evaluator.gates.probe import Probe, Rejected, Tensors, apart, loudness, normed
from evaluator.operator import OperatorError, OperatorProcess

CANCELLED = {torch.float32: 1e-5, torch.bfloat16: 1e-3}  # of the largest gradient's norm: the rounding that is left of what cancels
ENOUGH = 8192  # tokens: over so many a choice that rounding changes is seen to change when inputs are shaken, too
LEAST = 32  # rows; no protocol trains with fewer at once
OF_GRADIENT = 0.1  # of a gradient's norm: what the type that is less exact may round
ELSEWHERE = "in another process", "nothing may come from calls before, an address, a clock or chance"


def dtypes(operator: OperatorProcess, probe: Probe) -> None:
    """In bfloat16, in which a GPU trains, it is the function that float32 shows, but for rounding, and in float64 where that is taken."""
    for calm in (False, True):
        same_function(operator, operator, probe, 4, probe.randint(150, 400), torch.bfloat16, calm)
    _same_gradients(operator, probe, torch.bfloat16, torch.float32, probe.head_dim)  # in which a GPU trains, and as is measured
    if takes_float64(operator, probe):  # in which other gates measure what needs to be exact
        same_function(operator, operator, probe, 4, probe.randint(150, 400), torch.float64)
        _same_gradients(operator, probe, torch.float32, torch.float64, 16)


def _same_gradients(operator: OperatorProcess, probe: Probe, dtype: torch.dtype, finer: torch.dtype, dim: int) -> None:
    """`derivative` takes differences in the finest type there is; in the others the gradient is the same. Three draws must fail."""
    if probe.precision == "lower" or probe.properties.get("coarse_inputs"):
        return
    for _ in range(3):
        T = probe.randint(70, 140)
        x = probe.inputs(operator, 2, T, K=dim, dtype=dtype)
        x = probe.trained(x) if probe.randint(0, 1) else x
        grad_o = probe.randn(2, probe.num_heads, T, dim) / loudness(operator.forward(x, chunk_size=probe.chunk_size).float())
        grad_o = (grad_o - grad_o.mean((0, 2), keepdim=True)).to(dtype)
        _, found = operator.vjp(x, grad_o, chunk_size=probe.chunk_size)
        _, exact = operator.vjp({n: v.to(finer) for n, v in x.items()}, grad_o.to(finer), chunk_size=probe.chunk_size)
        pairs = [(n, g, found[n]) for n, g in exact.items() if g is not None]
        nothing = CANCELLED[dtype] * max((float(g.norm()) for _, g, _ in pairs), default=0.0)
        wrong = [n for n, g, f in pairs if f is None or float((f.to(finer) - g).norm()) > OF_GRADIENT * float(g.norm()) + nothing]
        if not wrong:
            return
    types = " is another than that in ".join(str(t).removeprefix("torch.") for t in (dtype, finer))
    raise Rejected(f"the gradient to {wrong[0]} in {types}, by more than {OF_GRADIENT:.0%} of it")


def same_function(
    operator: OperatorProcess, other: OperatorProcess, probe: Probe, B: int, T: int, dtype: torch.dtype, calm: bool = False
) -> None:
    """Some of B rows as `operator` sees them and as `other` sees them, alone and in float32.

    Three draws must fail, in one channel each time or in all of a head's together: where an operator chooses (the largest
    entries, the nearest centroid), rounding now and then chooses otherwise, in one channel here and in another there.
    """
    rows = min(B, max(4, ENOUGH // T))
    wrong = torch.ones(probe.num_heads, probe.head_dim, dtype=torch.bool)
    for _ in range(3):
        x = probe.inputs(operator, B, T, dtype=dtype, calm=calm)
        x["q"][::2, :, T // 2 :] = x["k"][::2, :, : T - T // 2]  # half of the rows ask for what stood before
        few = {n: v[:rows].float().contiguous() for n, v in x.items()}
        shaken = probe.legal({n: v * (1 + 2**-7 * probe.randn(*v.shape)) for n, v in few.items()})
        o, plain, moved = (
            _in_parts(normed(process.forward(given, chunk_size=probe.chunk_size)[:rows]))
            for process, given in ((operator, x), (other, few), (other, shaken))
        )
        varying = plain - plain.mean((1, 3), keepdim=True)  # an offset is no measure of what is added to it
        sizes = torch.stack([d.square().mean((1, 3)).sqrt() for d in (o - plain, moved - plain, varying, plain)])
        ratio, together = (
            off / (8 * rounding + 0.1 * varies + 2 * torch.finfo(dtype).eps * size).clamp_min(1e-30)
            for off, rounding, varies, size in (sizes, sizes.square().mean(-1, keepdim=True).sqrt())
        )
        wrong &= (~(ratio <= 1)).any(0)
        if not wrong.any() and bool((together <= 1).all()):
            return
    part, head, channel = (int(i) for i in torch.nonzero(~(ratio <= 1) & (wrong if wrong.any() else ~(together <= 1)))[0])
    given = f"with B = {B}, T = {T}, {str(dtype).removeprefix('torch.')}"
    if not math.isfinite(ratio[part, head, channel]):
        raise Rejected(f"outputs are not finite, or none of their differences is: {given} channel {channel} of head {head}")
    off, rounding, varies = (float(size[part, head, channel]) for size in sizes[:3])
    raise Rejected(
        f"another function than for few rows in float32 on a CPU: {given} channel {channel} of head {head} "
        f"is off by {off:.3g}, where it varies by {varies:.3g} and rounding moves it by {rounding:.3g}"
    )


def _in_parts(o: Tensor) -> Tensor:
    """[B, H, T, V] -> [part, B, H, tokens, V]: four parts in time, so that none hides behind the others."""
    parts = min(4, o.shape[2])
    return torch.stack(o[:, :, : o.shape[2] // parts * parts].chunk(parts, 2))


def exact(operator: OperatorProcess, probe: Probe, B: int, T: int, plain: OperatorProcess) -> None:
    """Time and rows at one exact batch and length, with and without gradients, and the same again in other processes; on a CPU gradients too.

    `plain` runs naive.py on the CPU: what the other gates have seen is what is trained. A batch that does not fit in
    memory is halved, as it is in training.
    """
    try:
        _exact(operator, probe, B, T, plain)
    except OperatorError as error:
        if error.kind != "memory" or B < 2 * LEAST:
            raise
        exact(operator, probe, B // 2, T, plain)


def _exact(operator: OperatorProcess, probe: Probe, B: int, T: int, plain: OperatorProcess) -> None:
    x = probe.inputs(operator, B, T)
    for grad in (False, True):
        others = torch.rand(B, generator=probe.rng) < 0.5
        o = cut_off(operator, probe, x, probe.cuts(x), 30.0, grad=grad, others=others)
        _same(o, probe.fresh.forward(x, chunk_size=probe.chunk_size, grad=grad), *ELSEWHERE)
    same_function(operator, plain, probe, B, T, probe.dtype)
    if operator.device == "cpu":  # a GPU's times and rounding were not measured for it yet
        among_many(operator, probe, affordable(operator, probe, B, T), T)


def memory(operator: OperatorProcess, probe: Probe) -> None:
    """The same call gives the same answer: at once, after hundreds of calls, in another process; inputs are only read."""
    H, D, C = probe.num_heads, probe.head_dim, probe.chunk_size
    T = probe.randint(230, 420)
    x = probe.inputs(operator, 2, T)
    for grad in (True, False):
        o, after = operator.forward_and_inputs(x, chunk_size=C, grad=grad)
        _only_read(x, after, "delta_rule")
    short = probe.inputs(operator, 1, 33)
    rare = short | {"v": 100 * short["v"], "beta": short["beta"].round()}  # what a bound in place would write
    _only_read(rare, operator.forward_and_inputs(rare, chunk_size=C)[1], "delta_rule")
    _only_read(short, operator.inputs_after_backward(short, probe.randn(1, H, 33, D), chunk_size=C), "its backward pass")
    kept = "nothing may be kept between calls"
    _same(o, operator.forward(x, chunk_size=C), "after other calls and a backward pass", kept)
    _same(o, probe.fresh.forward(x, chunk_size=C), *ELSEWHERE)
    began = operator.clock()
    for length in (T, 1024, probe.randint(421, 1023)):  # what may begin far on
        if operator.clock() - began > 2.0:  # a slow operator is asked at those that come first
            break
        x = probe.inputs(operator, 2, length)
        o = operator.forward(x, chunk_size=C)
        _same(o, operator.forward(x, chunk_size=C, grad=True), "while gradients are recorded", "training and testing are one function")
        unwritten = "when new memory holds NaN", "write all that torch.empty gives"
        _same(o, operator.forward(x, chunk_size=C, poison=True), *unwritten)
        grad_o = probe.randn(*o.shape, dtype=o.dtype)
        nan = [
            {n: g.isnan() for n, g in operator.vjp(x, grad_o, chunk_size=C, poison=poison)[1].items() if g is not None}
            for poison in (False, True)
        ]
        if told := [n for n in nan[1] if bool((nan[1][n] & ~nan[0][n]).any())]:
            raise Rejected(f"the gradient to {told[0]} is NaN {unwritten[0]} (T = {length}); {unwritten[1]}")
    if probe.first:
        _same(probe.first[1], operator.forward(probe.first[0], chunk_size=C), "than at the start of the check", kept)


def _only_read(inputs: Tensors, after: Tensors, by: str) -> None:
    written = [n for n in inputs if not torch.equal(inputs[n], after[n])]
    if written:
        raise Rejected(f"{by} writes into its input {', '.join(written)}; work on a copy")


def _same(o: Tensor, again: Tensor, when: str, so: str) -> None:
    moved = apart(again, o)
    if moved > 4 * torch.finfo(o.dtype).eps:
        raise Rejected(f"the same inputs give another output {when} (by {moved:.3g}); {so}")
