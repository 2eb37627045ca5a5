"""Gates on the contract: what is declared, shapes, dtypes, finite values, cost."""

import math
from collections.abc import Mapping

import torch

from evaluator.gates.probe import Probe, Rejected, Tensors, size
from evaluator.model import architecture
from evaluator.operator import OperatorError, OperatorProcess
from evaluator.protocol import BASELINES, PROTOCOLS

MORE_PARAMETERS = 1.10


def declarations(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """What a variant declares must be the same whenever it is asked, and the model hardly larger than the baseline."""
    first, again = (operator.describe(7) for _ in range(2))
    elsewhere = probe.fresh.describe(7)
    for other in (again, elsewhere):
        same = first.projections == other.projections and first.parameters.keys() == other.parameters.keys()
        if not same or any(not torch.equal(first.parameters[n], other.parameters[n]) for n in first.parameters):
            raise Rejected("projections or parameters differ from call to call; draw only from the generator given")
    if first.projections.get("output_gate", operator.head_dim) != operator.head_dim:
        raise Rejected(
            f"output_gate has width {first.projections['output_gate']}, it must be head_dim = {operator.head_dim}"
        )
    count = model_parameters(first.projections, {n: tuple(p.shape) for n, p in first.parameters.items()})
    baseline = model_parameters({}, {})
    limit = int(baseline * MORE_PARAMETERS)
    if count > limit:
        raise Rejected(
            f"the model has {count} parameters at vocabulary 16, at most {limit} are allowed (10 % over the baseline)"
        )
    return {"parameters": {"model": count, "baseline": baseline}, "recurrent": first.has_recurrence}


def model_parameters(projections: dict[str, int], parameters: dict[str, tuple[int, ...]]) -> int:
    """Learned numbers of MAD's model at vocabulary 16 with what a variant declares; DeltaNet declares nothing."""
    return architecture(BASELINES["in-context-recall"], PROTOCOLS["mad"], projections, parameters).num_parameters


def shapes(operator: OperatorProcess, probe: Probe) -> dict[str, object] | None:
    """An operator answers [B, H, T, V] in q's dtype with finite numbers at every length, in float32 and bfloat16."""
    C = probe.chunk_size
    lengths = [1, 2, C - 1, C, C + 1, 3 * C + 5, 4 * C - 1, 4 * C, 131, probe.randint(140, 200)]
    for T in lengths:
        for dtype in (torch.float32, torch.bfloat16):
            x = probe.inputs(operator, probe.randint(1, 3), T, dtype=dtype)
            o = _called(operator, probe, x, f"T = {T}, {dtype}")
            _finite(o, f"at T = {T} in {dtype}")
            probe.first = probe.first or (x, o)
    other = probe.inputs(operator, 1, 37, heads=3, K=16)
    _called(operator, probe, other, "3 heads of 16")
    return _values_of_another_width(operator, probe)


def _called(operator: OperatorProcess, probe: Probe, x: Tensors, what: str) -> torch.Tensor:
    try:
        return operator.forward(x, chunk_size=probe.chunk_size)
    except OperatorError as error:
        raise Rejected(f"delta_rule fails with {what}: {error.message}") from None


def _finite(o: torch.Tensor, what: str) -> None:
    bad = int((~torch.isfinite(o)).sum())
    if bad:
        raise Rejected(f"{bad} of {o.numel()} outputs are NaN or infinite {what}")


def _values_of_another_width(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """Whether V may differ from K. The trainer's are the same, so what multiplies keys and values is recorded, no fault."""
    try:
        _called(operator, probe, probe.inputs(operator, 2, 45, K=16, V=24), "K = 16, V = 24")
    except Rejected:
        return {"any_value_width": False}
    return {"any_value_width": True}


def finite(operator: OperatorProcess, probe: Probe) -> None:
    """Large, small and constant inputs are legal: an operator that turns them into NaN ends a training late."""
    H, K, C = probe.num_heads, probe.head_dim, probe.chunk_size
    for dtype in (torch.float32, torch.bfloat16):
        for scale in (1e-3, 12.0, 60.0):
            x = probe.inputs(operator, 2, 2 * C + 3, dtype=dtype, scale=scale)
            _finite(operator.forward(x, chunk_size=C), f"for inputs of magnitude {size(x['v']):.3g} in {dtype}")
        for edge in (0.0, 1.0):
            x = probe.inputs(operator, 2, 2 * C + 3, dtype=dtype)
            x["beta"] = torch.full_like(x["beta"], edge)
            _finite(operator.forward(x, chunk_size=C), f"where beta is {edge:.0f} in {dtype}")
    x = probe.inputs(operator, 2, C + 5)
    x["k"][:] = x["k"][:, :, :1]
    x["v"][1] = 0
    _finite(operator.forward(x, chunk_size=C), "where all keys are the same and some values are zero")
    for scale in (1e-2, 1.0, 12.0):
        x = probe.inputs(operator, 1, 2 * C + 1, scale=scale)
        _, grads = operator.vjp(x, probe.randn(1, H, 2 * C + 1, K), chunk_size=C)
        bad = [n for n, g in grads.items() if g is not None and not bool(torch.isfinite(g).all())]
        if bad:
            raise Rejected(f"the gradient to {', '.join(bad)} is NaN or infinite for inputs of magnitude {scale:g}")


def growth(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """Over a long sequence outputs may not run away: equal keys with beta = 1 are the hardest legal case."""
    T, found = 1536, 0.0
    for same_keys in (False, True):
        x = probe.inputs(operator, 1, T)
        if same_keys:
            x["k"][:] = x["k"][:, :, :1]
            x["beta"][:] = 1
        o = operator.forward(x, chunk_size=probe.chunk_size)
        early, late = size(o[:, :, : T // 4]), size(o[:, :, -T // 4 :])
        if not math.isfinite(late) or late > 1e4 * max(early, 1.0):
            where = "with one key for all and betas of 1" if same_keys else "with inputs as they come"
            moved = ", and declared parameters some 0.1 from where they begin" if set(x) - set(probe.over_time(x)) else ""
            raise Rejected(f"outputs grow from {early:.3g} to {late:.3g} over {T} tokens {where}{moved}; bound the state")
        found = max(found, late / early)
    return {"growth": round(found, 3)}


def speed(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """What takes minutes a step can't be trained; the bound is wide, slow is no fault."""
    seconds = _seconds(operator, probe, 128)
    if seconds > 4:
        raise Rejected(f"128 tokens take {seconds:.1f} s; at most 4 s are allowed")
    return {"milliseconds_a_token": round(1000 * seconds / 128, 4)}


def cost(operator: OperatorProcess, probe: Probe) -> dict[str, object]:
    """Work, time and memory must grow with the length, not with its square.

    What forward and backward calculate together is counted. The time of forward sees what isn't counted; the best of several
    rounds tells slow from quadratic. Where a machine's caches end it makes one leap, so what looks too slow is asked at
    longer and longer sequences: only what grows too fast in the last octave, and in all of them together, is rejected.
    What is quick is asked once beyond all lengths that are trained. A backward pass is not timed: torch makes the gradient
    of each slice as long as the sequence, so an honest one's time grows with the square, at a share that memory makes
    large on a busy machine.
    """
    milliseconds_a_token = probe.properties["milliseconds_a_token"]
    T = 256 if milliseconds_a_token < 1.2 else 32
    exponents = dict[str, float]()
    if milliseconds_a_token < 0.2:
        longest = 2048 if milliseconds_a_token < 0.05 else 512
        done = {n: operator.work(probe.inputs(operator, 1, n), chunk_size=probe.chunk_size) for n in (longest // 2, longest)}
        exponents["work"] = math.log2(done[longest] / done[longest // 2])
        if exponents["work"] > 1.3:
            told = ", ".join(f"{operations:.3g} operations at {n}" for n, operations in done.items())
            raise Rejected(f"work with a backward pass grows as T^{exponents['work']:.2f} ({told}); it must be linear in T")
    exponent, times = _exponent(operator, probe, T)
    if exponent > 1.5:
        raise Rejected(f"time grows as T^{exponent:.2f} ({_told(times)}); it must be linear in T")
    exponents["time"] = exponent
    kept = {n: operator.kept_bytes(probe.inputs(operator, 1, n), chunk_size=probe.chunk_size) for n in (T, 2 * T, 4 * T)}
    memory = math.log2(kept[4 * T] / kept[2 * T])
    if memory > 1.3:
        told = ", ".join(f"{n_bytes} bytes at {n}" for n, n_bytes in kept.items())
        raise Rejected(f"memory kept for the backward pass grows as T^{memory:.2f} ({told}); it must be linear in T")
    milliseconds = {str(n): round(1000 * t, 2) for n, t in times.items()}
    return {"exponents": {name: round(n, 2) for name, n in (exponents | {"memory": memory}).items()}, "milliseconds": milliseconds}


def _told(times: Mapping[int, float]) -> str:
    return ", ".join(f"{1000 * t:.3g} ms at {n}" for n, t in times.items())


def _exponent(operator: OperatorProcess, probe: Probe, T: int) -> tuple[float, dict[int, float]]:
    """How time grows with the length, from T to 4 T and, where it looks too slow, to 32 T; and the seconds at each."""
    times = dict.fromkeys((T, 2 * T, 4 * T), math.inf)

    def again(*lengths: int) -> None:
        times.update({n: min(times.get(n, math.inf), _seconds(operator, probe, n)) for n in lengths})

    for _ in range(5):  # more rounds only while it looks too slow
        again(T, 2 * T, 4 * T)
        exponent = math.log2(times[4 * T] / times[2 * T])
        if exponent <= 1.25:
            break
    for longest in (8 * T, 16 * T, 32 * T):
        if exponent <= 1.35 and (longest > 8 * T or probe.properties["milliseconds_a_token"] > 0.2):
            break
        for turn in range(3):
            again(longest // 2, longest)
            last, all_ = (math.log2(times[longest] / times[n]) for n in (longest // 2, 2 * T))
            exponent = min(last, all_ / math.log2(longest / (2 * T)))
            if exponent <= 1.25 or (exponent > 1.8 and (turn or longest < 32 * T)):  # far from both bounds
                break
    return exponent, times


def _seconds(operator: OperatorProcess, probe: Probe, T: int) -> float:
    """Time of one call, without the transfer of its inputs, from as many as take some twenty milliseconds."""
    x = probe.inputs(operator, 1, T)
    transfer = min(operator.measure(x, chunk_size=probe.chunk_size, repeat=0)[0] for _ in range(3))
    once = operator.measure(x, chunk_size=probe.chunk_size, repeat=1)[0]
    repeat = min(20, max(1, int(0.02 / max(once - transfer, 1e-3))))
    rounds = 1 if once > 0.3 else 2
    best = min(operator.measure(x, chunk_size=probe.chunk_size, repeat=repeat)[0] for _ in range(rounds))
    return max(best - transfer, 1e-5) / repeat
