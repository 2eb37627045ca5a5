"""How fast the operators are on a GPU, and whether the kernels agree with naive.py there.

    python benchmarks/operator_speed.py --variants delta_net gated_delta_net --fla --out operator-speed.csv

Checks come first (relative errors of the output and of every gradient against naive.py with TF32 off, odd
lengths, float32 and bfloat16), then the times: medians over calls between CUDA events, at the shapes of MAD
and at one of a language model, eager and in a CUDA graph. Beside each time stands its floor: the least
bytes and FLOP that the call needs over the device's ceilings, which --bandwidth and --rate give. What fails
is reported, and the rest goes on.
"""

import argparse
import csv
import importlib.util
import statistics
import sys
from pathlib import Path

import torch

VARIANTS = Path(__file__).parents[1] / "variants"
MAD = [(768, 2, 32, 64), (768, 2, 128, 64), (768, 2, 512, 64)]  # batch, heads, T, head_dim
LANGUAGE_MODEL = [(8, 16, 4096, 128)]
CHECKS = [
    (2, 2, 1, 64), (3, 2, 31, 64), (2, 2, 33, 64), (4, 2, 127, 64), (2, 1, 511, 64), (2, 2, 77, 16),
    (1, 2, 300, 32), (1, 2, 301, 128), (1, 1, 130, 256), (1, 1, 67, 48),
    (1, 1, 1300, 16), (1, 2, 1100, 32), (1, 2, 1100, 64), (2, 1, 2048, 128), (1, 1, 1500, 256),
]  # fmt: skip
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
COLUMNS = ("kind", "variant", "form", "dtype", "batch", "heads", "T", "head_dim", "chunk_size", "warps", "ms",
           "floor_ms", "megabytes", "gigaflop", "error", "worst", "note")  # fmt: skip


def load(name, form):
    spec = importlib.util.spec_from_file_location(f"{name}_{form}", VARIANTS / name / f"{form}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(naive, shape, dtype):
    B, H, T, D = shape
    generator = torch.Generator("cuda").manual_seed(T)
    q, k, v = torch.nn.functional.silu(torch.randn(3, B, H, T, D, generator=generator, device="cuda"))
    inputs = {"q": q, "k": k, "v": v, "beta": torch.rand(B, H, T, generator=generator, device="cuda")}
    widths = naive.projections(H, D) if hasattr(naive, "projections") else {}
    for name in widths.keys() - {"output_gate"}:
        inputs[name] = torch.randn(B, H, T, widths[name], generator=generator, device="cuda")
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    parameters = (
        naive.parameters(H, D, torch.Generator().manual_seed(0)) if hasattr(naive, "parameters") else {}
    )
    inputs |= {name: p.cuda().expand(B, *p.shape) for name, p in parameters.items()}
    return {name: x.contiguous().requires_grad_() for name, x in inputs.items()}


def forward_and_backward(rule, inputs, grad):
    o = rule(**inputs)
    return (o, *torch.autograd.grad(o, list(inputs.values()), grad))


def check(name, shape, dtype):
    """The largest relative error (in the Frobenius norm) and where it is."""
    naive, kernels = load(name, "naive"), load(name, "triton")
    torch.backends.cuda.matmul.allow_tf32 = False
    inputs = inputs_of(naive, shape, dtype)
    grad = torch.randn_like(inputs["v"])
    results = [
        forward_and_backward(lambda m=m, **x: m.delta_rule(**x, chunk_size=32), inputs, grad)
        for m in (naive, kernels)
    ]
    errors = {}
    for n, x, y in zip(("o", *inputs), *results, strict=True):
        errors[n] = ((x.float() - y.float()).norm() / (x.float().norm() + 1e-6)).item()
    worst = max(errors, key=errors.get)
    note = " ".join(f"{n}={e:.1e}" for n, e in errors.items())
    return {"error": f"{errors[worst]:.2e}", "worst": worst, "note": note}


def median_ms(call, warm_up=5, repeats=30):
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def captured(call):
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def least_work(shape, dtype, chunk_size):
    """Bytes that a forward and backward pass must move, and FLOP (backward = 2 forward)."""
    B, H, T, D = shape
    moved = B * H * T * (11 * D + 3) * dtype.itemsize
    C = chunk_size
    per_chunk = 8 * C * C * D + 6 * C * D * D * (T > C) + 2 * C**3 / 3
    return moved, 3 * B * H * -(-T // C) * per_chunk


def fla_rules():
    """fla's operators as functions of our inputs in its layout [B, T, H, .], by our names."""
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    def delta_net(q, k, v, beta):
        return chunk_delta_rule(q, k, v, beta, use_qk_l2norm_in_kernel=True)[0]

    def gated_delta_net(q, k, v, beta, a, A_log, dt_bias):
        x = a.squeeze(-1).float() + dt_bias[:, None]
        g = -A_log[:, None].exp() * torch.nn.functional.softplus(x)
        return chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=True)[0]

    return {"delta_net": delta_net, "gated_delta_net": gated_delta_net}


def forms_of(name, chunk_size, fla):
    """Form -> (rule of the inputs, whether it wants fla's layout)."""
    naive = load(name, "naive")
    forms = {"naive": (lambda **x: naive.delta_rule(**x, chunk_size=chunk_size), False)}
    if (VARIANTS / name / "triton.py").exists():
        kernels = load(name, "triton")
        forms["triton"] = (lambda **x: kernels.delta_rule(**x, chunk_size=chunk_size), False)
    if fla is not None and name in ("delta_net", "gated_delta_net"):
        forms["fla"] = (fla_rules()[name], True)
    return forms


def in_fla_layout(inputs):
    return {
        n: (x.detach().transpose(1, 2).contiguous() if x.dim() > 2 else x.detach()).requires_grad_()
        for n, x in inputs.items()
    }


def time_form(name, rule, transposed, shape, dtype):
    """Milliseconds of a forward and backward pass, eager and in a graph (None: no capture)."""
    torch.backends.cuda.matmul.allow_tf32 = True
    inputs = inputs_of(load(name, "naive"), shape, dtype)
    inputs = in_fla_layout(inputs) if transposed else inputs
    grad = torch.randn_like(inputs["v"])

    def call():
        forward_and_backward(rule, inputs, grad)

    eager = median_ms(call)
    try:
        return eager, median_ms(captured(call)), ""
    except RuntimeError as error:  # what the capture forbids differs from operator to operator
        return eager, None, f"no graph: {first_line(error)}"


def first_line(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else ''}"


class Table:
    """Rows written as they come, so that a crash of the device loses none of those before it."""

    def __init__(self, path):
        self.file = path.open("w", newline="") if path else None
        self.writer = csv.DictWriter(self.file, COLUMNS) if path else None
        if self.writer:
            self.writer.writeheader()

    def add(self, **row):
        shown = " ".join(f"{row[c]}" for c in COLUMNS if row.get(c) not in (None, ""))
        print(shown, flush=True)
        if self.writer:
            self.writer.writerow(row)
            self.file.flush()


def described(kind, name, form, dtype, shape, chunk_size):
    B, H, T, D = shape
    size = {"batch": B, "heads": H, "T": T, "head_dim": D, "chunk_size": chunk_size}
    return {"kind": kind, "variant": name, "form": form, "dtype": str(dtype).removeprefix("torch."), **size}


def run_checks(table, names):
    for name in names:
        if not (VARIANTS / name / "triton.py").exists():
            continue
        for dtype, tolerance in TOLERANCE.items():
            for shape in CHECKS:
                row = described("check", name, "triton", dtype, shape, 32)
                try:
                    result = check(name, shape, dtype)
                    verdict = "agrees" if float(result["error"]) <= tolerance else "DIFFERS"
                    table.add(**row, **(result | {"note": f"{verdict} {result['note']}"}))
                except Exception as error:  # a kernel may fail in the compiler, the driver or the launcher
                    table.add(**row, note=f"FAILED {first_line(error)}")


def run_times(table, names, args):
    shapes = {"mad": [(s, 32) for s in MAD], "language-model": [(s, 64) for s in LANGUAGE_MODEL]}
    for name in names:
        for shape, chunk_size in [s for kind in args.shapes for s in shapes[kind]]:
            moved, flop = least_work(shape, torch.bfloat16, chunk_size)
            floor = max(moved / (args.bandwidth * 1e9), flop / (args.rate * 1e9))
            size = {
                "floor_ms": f"{floor:.4f}",
                "megabytes": f"{moved / 1e6:.1f}",
                "gigaflop": f"{flop / 1e9:.1f}",
            }
            for form, (rule, transposed) in forms_of(name, chunk_size, args.fla).items():
                row = described("time", name, form, torch.bfloat16, shape, chunk_size)
                try:
                    eager, graph, note = time_form(name, rule, transposed, shape, torch.bfloat16)
                    table.add(**(row | size | {"form": f"{form} eager", "ms": f"{eager:.4f}"}))
                    ms = f"{graph:.4f}" if graph else ""
                    table.add(**(row | size | {"form": f"{form} graph", "ms": ms, "note": note}))
                except Exception as error:  # as above
                    table.add(**row, note=f"FAILED {first_line(error)}")
                torch.cuda.empty_cache()


def run_sweep(table, names):
    """The kernels' time over warps and chunk_size: which to build in."""
    for name in names:
        if not (VARIANTS / name / "triton.py").exists():
            continue
        for shape in MAD + LANGUAGE_MODEL:
            for chunk_size in (16, 32, 64):
                for warps in (1, 2, 4, 8):
                    kernels = load(name, "triton")
                    kernels.num_warps = lambda tile, warps=warps: warps
                    rule = lambda k=kernels, c=chunk_size, **x: k.delta_rule(**x, chunk_size=c)  # noqa: E731
                    row = described("sweep", name, "triton", torch.bfloat16, shape, chunk_size)
                    try:
                        _, graph, note = time_form(name, rule, False, shape, torch.bfloat16)
                        table.add(**row, warps=warps, ms=f"{graph:.4f}" if graph else "", note=note)
                    except Exception as error:  # as above
                        table.add(**row, warps=warps, note=f"FAILED {first_line(error)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_kernels = sorted(path.parent.name for path in VARIANTS.glob("*/triton.py"))
    parser.add_argument("--variants", nargs="+", default=with_kernels, help="default: those with a triton.py")
    parser.add_argument(
        "--fla", nargs="?", const="", metavar="FLASH-LINEAR-ATTENTION",
        help="time fla's operators beside ours: of this checkout, or of the installed one",
    )  # fmt: skip
    shapes = ("mad", "language-model")
    parser.add_argument("--shapes", nargs="+", choices=shapes, default=shapes, help="at which to time; default: both")
    parser.add_argument(
        "--sweep", action="store_true", help="also time the kernels over warps and chunk_size"
    )
    parser.add_argument("--skip-checks", action="store_true")
    parser.add_argument("--skip-times", action="store_true")
    parser.add_argument("--bandwidth", type=float, default=4.0, help="ceiling of the device's memory, TB/s")
    parser.add_argument("--rate", type=float, default=700.0, help="ceiling of its bf16 products, TFLOP/s")
    parser.add_argument("--out", type=Path, help="CSV file")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("operator_speed needs a CUDA device, and torch sees none.")
    if args.fla:
        sys.path.insert(0, str(Path(args.fla).resolve()))
    if args.fla is not None and importlib.util.find_spec("fla") is None:
        sys.exit(f"--fla {args.fla}: there is no fla there, and none is installed".replace("--fla :", "--fla:"))
    table = Table(args.out)
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    if not args.skip_checks:
        run_checks(table, args.variants)
    if not args.skip_times:
        run_times(table, args.variants, args)
    if args.sweep:
        run_sweep(table, args.variants)


if __name__ == "__main__":
    main()
