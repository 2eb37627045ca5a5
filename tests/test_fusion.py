"""A compiled operator computes what eager code computes: stored variants, and operators written to be awkward."""

import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

from evaluator.fusion import faster
from evaluator.fusion.capture import fused_operator
from evaluator.fusion.compiled import Compiled
from evaluator.fusion.emit import HEADER
from evaluator.fusion.index import NotAffine, divide, linear, plus, times, variable
from evaluator.fusion.kernel import Kernel
from evaluator.fusion.library import Library
from evaluator.fusion.pointwise import TEXTS, identity

VARIANTS = Path(__file__).parents[1] / "variants"


def load(name):
    """A stored variant's naive form; these are ours."""
    spec = importlib.util.spec_from_file_location(f"stored_{name}", VARIANTS / name / "naive.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample(operator, T, seed=0, B=2, H=2, D=32):
    """Inputs as the layer makes them, for every declaration of the operator."""
    g = torch.Generator().manual_seed(seed)
    inputs = {name: F.silu(torch.randn(B, H, T, D, generator=g)) for name in "qkv"}
    inputs["beta"] = torch.rand(B, H, T, generator=g)
    widths = operator.projections(H, D) if hasattr(operator, "projections") else {}
    for name in widths.keys() - {"output_gate"}:
        inputs[name] = torch.randn(B, H, T, widths[name], generator=g)
    parameters = operator.parameters(H, D, g) if hasattr(operator, "parameters") else {}
    return inputs | {name: p.expand(B, *p.shape).contiguous() for name, p in parameters.items()}


def results(rule, inputs, grad):
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    o = rule(leaves)
    return [o, *torch.autograd.grad(o, list(leaves.values()), grad, allow_unused=True, materialize_grads=True)]


def agree(rule, inputs, library=None):
    """Holds compiled outputs and gradients to eager ones, and returns the library of kernels."""
    library = library or Library()
    grad = torch.randn_like(inputs["v"])
    eager, compiled = results(rule, inputs, grad), results(fused_operator(rule, library), inputs, grad)
    exact = results(rule, {name: x.double() for name, x in inputs.items()}, grad.double())
    shaken = results(rule, {name: x * (1 + 2**-23 * torch.randn_like(x)) for name, x in inputs.items()}, grad)
    for name, x, a, b, c in zip(("o", *inputs), exact, eager, compiled, shaken, strict=True):
        assert a.dtype == b.dtype
        own = max((x - a).norm(), (c - a).norm())  # where that is large, rounding decides, and in another order decides otherwise
        assert (x - b).norm() <= max(1e-4 * x.norm() + 1e-6, (3 if own < 1e-5 * x.norm() else 100) * own), name
    with torch.no_grad():
        torch.testing.assert_close(fused_operator(rule, library)(inputs), eager[0].detach(), rtol=1e-3, atol=1e-4)
    return library


def operator_of(module):
    def rule(inputs):
        rest = {n: x for n, x in inputs.items() if n not in ("q", "k", "v", "beta")}
        return module.delta_rule(*(inputs[n] for n in ("q", "k", "v", "beta")), chunk_size=32, **rest)

    return rule


@pytest.mark.parametrize(
    ("name", "T"), [("delta_net", 1), ("delta_net", 70), ("gated_delta_net", 31), ("softmax_tanh_beta_gated_update", 33)]
)
def test_stored_variants(name, T):
    module = load(name)
    library = agree(operator_of(module), sample(module, T))
    assert library.kernels


@pytest.mark.skipif("AGENT_TORTURE" not in os.environ, reason="make torture tries every stored variant")
@pytest.mark.parametrize("name", sorted(p.parent.name for p in VARIANTS.glob("*/naive.py")))
@pytest.mark.parametrize("T", [32, 127])
def test_every_stored_variant(name, T):
    module = load(name)
    agree(operator_of(module), sample(module, T))


def test_chunks_share_their_kernels():
    module = load("delta_net")
    rule = operator_of(module)
    short, long = (agree(rule, sample(module, T, B=1, H=1, D=16)) for T in (96, 128))
    assert len(long.kernels) == len(short.kernels)


@pytest.mark.parametrize("name", ["row_norm_constrained_state_after_update", "add_momentum_to_state_update_in_for_loop"])
def test_the_backward_pass_reads_the_states_that_the_forward_pass_wrote(monkeypatch, name):
    made = []

    class Noted(Compiled):
        def __init__(self, module, library):
            super().__init__(module, library)
            made.append(self)

    monkeypatch.setattr("evaluator.fusion.capture.Compiled", Noted)
    module = load(name)
    inputs = sample(module, 128, B=1, H=1, D=16)
    results(fused_operator(operator_of(module), Library()), inputs, torch.randn_like(inputs["v"]))
    forward, backward = made[-2:]
    written, anew = ({x.name for x in found if x.target is not identity} for found in (forward.stored, backward.plan.tiles))
    assert written
    assert not written & anew


def chunked(x, C=16):
    B, H, T, D = x.shape
    return F.pad(x, (0, 0, 0, -T % C)).reshape(B, H, -1, C, D)


def reduces_rows(i):
    q, v = chunked(i["q"]), chunked(i["v"])
    o = v * torch.softmax(q, -2) + v.amax(-2, keepdim=True) - q.mean((-2, -1), keepdim=True)
    return o.flatten(2, 3)[:, :, : i["v"].shape[2]]


def shifts_and_flips(i):
    past = F.pad(i["v"], (0, 0, 3, 0))[:, :, :-3]
    return past + i["v"].flip(-1) * torch.cat([i["q"][..., 16:], -i["q"][..., :16]], -1)


def writes_in_place(i):
    o = torch.zeros_like(i["v"])
    S = i["v"].new_zeros(*i["v"].shape[:2], i["q"].shape[-1], i["v"].shape[-1])
    for start in range(0, i["v"].shape[2], 16):
        q, k, v = (i[n][:, :, start : start + 16] for n in "qkv")
        o[:, :, start : start + 16] = q @ S
        S = S + k.mT @ v * 0.01
    return o


def writes_over_what_is_there(i):
    o = i["v"] * 0.5
    for start in range(0, i["v"].shape[2], 16):
        o[:, :, start : start + 16] += i["q"][:, :, start : start + 16] * (1 + start)
    o[..., 4:8] = o[..., :4].clone() * i["beta"][..., None]
    o[:, :, ::2] *= 2.0
    o[:, :, -3:, 1] = 1.0
    return o


def token_by_token(i):
    S = i["v"].new_zeros(*i["v"].shape[:2], i["q"].shape[-1], i["v"].shape[-1])
    outputs = []
    for q, k, v, beta in zip(*(i[n].unbind(2) for n in ("q", "k", "v", "beta")), strict=True):
        S = S + 0.01 * beta[..., None, None] * k[..., :, None] * v[..., None, :]
        outputs.append((q[..., None, :] @ S).squeeze(-2))
    return torch.stack(outputs, 2)


def sorts(i):
    top = i["v"].abs().topk(4, -1).values[..., -1:]
    return torch.where(i["v"].abs() >= top, i["v"], 0.0) * i["beta"][..., None].cumsum(2)


def einsum_heads(i):
    mixed = torch.einsum("bhtd,bhsd->bhts", i["q"], i["k"]).tril()
    return torch.einsum("bhts,bhsd->bhtd", mixed, i["v"]) / 10


def functions(i):
    x = i["v"].tanh() + i["q"].sigmoid() * F.softplus(i["k"]) + (i["v"] * 1e-3).tanh() * 1e3
    x = x + i["k"].clamp(-0.1, 0.2).exp().log1p() + i["q"].abs().pow(1.5) + i["v"].square().add(1e-3).rsqrt()
    return x + torch.maximum(i["q"], i["k"]) * (i["q"] > 0.1) + F.silu(i["v"]) + torch.expm1(i["v"] * 0.1)


def scans(i):
    decay, T = -F.softplus(i["q"]), i["v"].shape[2]
    rows = chunked(decay).cumsum(-2)
    betas = F.pad(i["beta"], (0, -T % 16)).unflatten(2, (-1, 16)).cumsum(-1)
    back = chunked(i["v"] * 0.1).flip(-2).cumsum(-2).flip(-2)
    column = chunked(i["beta"][..., None]).cumsum(-2)
    o = chunked(i["v"]) * rows.exp() + back * betas[..., None] * column + i["k"].cumsum(-1)[:, :, :1, None, :]
    return o.flatten(2, 3)[:, :, :T]


def norms(i):
    q, k, v = (i[n] for n in "qkv")
    q = F.normalize(q, dim=-1) + k / (k.norm(dim=-1, keepdim=True) + 1e-3) + v / v.norm(p=1, dim=-1, keepdim=True).clamp(min=1e-3)
    q = q + (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True) + 1e-3).sqrt() + k / (k.std(-1, keepdim=True, unbiased=False) + 1e-2)
    q = q + F.elu(v) + F.gelu(k) + F.gelu(v, approximate="tanh") + F.leaky_relu(k - 0.1, 0.2) + F.hardtanh(v, -0.2, 0.3)
    return torch.where(~(k > 0.1), q, torch.full_like(q, 0.5) * v)


def solves(i):
    k, v, T = chunked(i["k"]), chunked(i["v"]), i["v"].shape[2]
    A = torch.eye(16) + (0.1 * k @ k.mT).tril(-1)
    lower = torch.linalg.solve_triangular(A, v, upper=False, unitriangular=True)
    upper = torch.linalg.solve_triangular((A + k.square().mean((-2, -1), keepdim=True)).mT, lower + v, upper=True)
    small = torch.linalg.solve_triangular(torch.eye(4) * 2.0 + A[..., :4, :4], v[..., :4, :], upper=False)
    return (lower + upper + F.pad(small, (0, 0, 0, 12))).flatten(2, 3)[:, :, :T]


AWKWARD = [solves, scans, norms, reduces_rows, shifts_and_flips, writes_in_place, writes_over_what_is_there, token_by_token, sorts, einsum_heads, functions]


@pytest.mark.parametrize("T", [16, 21])
@pytest.mark.parametrize("rule", AWKWARD, ids=lambda rule: rule.__name__)
def test_awkward_operators(rule, T):
    agree(rule, sample(None, T // 4 if rule is token_by_token else T))  # a kernel a token is slow to interpret


class Refusing(Library):
    """As where the compiler takes one kernel of a few, or none."""

    def __init__(self, one_of):
        super().__init__()
        self.one_of, self.asked = one_of, {}

    def launch(self, kernel, tensors):
        number = self.asked.setdefault(kernel.source, len(self.asked))
        return bool(self.one_of) and number % self.one_of == 0 and super().launch(kernel, tensors)


DELTA_NET = operator_of(load("delta_net"))


@pytest.mark.parametrize(
    ("rule", "one_of"), [*((rule, 0) for rule in (DELTA_NET, *AWKWARD)), (DELTA_NET, 2), (scans, 2), (writes_in_place, 3)]
)
def test_what_the_compiler_refuses_is_left_to_aten(rule, one_of):
    library = Refusing(one_of)
    agree(rule, sample(None, 5 if rule is token_by_token else 37), library)
    assert library.asked


def test_the_compilers_errors_are_a_kernels_own(monkeypatch):
    library, kernel = Library(), Kernel(f"{HEADER}@triton.jit\ndef kernel(p0):\n    pass\n", (), 1, 1)

    def fails(kernel, tensors):
        raise RuntimeError("PassManager::run failed\nmodule {}")

    monkeypatch.setattr(library, "_compile", fails)
    library.prepare([(kernel, [torch.empty(1)])])
    assert library.refused == {kernel.source: "RuntimeError: PassManager::run failed"}
    assert not library.launch(kernel, [torch.empty(1)])
    monkeypatch.undo()
    library.deadline = -math.inf
    with pytest.raises(TimeoutError, match="no end within its time"):
        library.prepare([(kernel, [torch.empty(1)])])


def test_bfloat16_is_rounded_where_eager_code_rounds():
    inputs = {n: x.bfloat16() for n, x in sample(None, 20).items()}
    rule = lambda i: (i["q"] * i["k"] + i["v"]) * i["beta"][..., None]  # noqa: E731
    with torch.no_grad():
        fused = fused_operator(rule, Library())(inputs)
    assert fused.dtype == torch.bfloat16
    assert (fused.float() - rule(inputs).float()).abs().max() <= 2**-7 * rule(inputs).float().abs().max()


def test_an_operator_that_asks_for_values_is_not_compiled_but_raises():
    def rule(i):
        return i["v"] * (1.0 if i["q"].sum().item() > 0 else 2.0)

    with pytest.raises(Exception, match=r"item|data|Proxy|symbol|local_scalar"):
        fused_operator(rule, Library())(sample(None, 16))


def test_no_kernel_is_begun_after_the_deadline():
    library = Library()
    library.deadline = -math.inf
    with pytest.raises(TimeoutError, match="no end within its time"):
        fused_operator(lambda i: i["v"] @ i["q"].mT @ i["k"], library)(sample(None, 16))


def test_indices_divide_exactly_or_not_at_all():
    extents = {"b": 3, "t": 8, "c": 4}
    whole = linear((variable("b"), variable("t"), variable("c")), (32, 4, 1))
    high, low = divide(whole, 4, extents)
    assert high == plus(times(variable("b"), 8), variable("t"))
    assert low == variable("c")
    with pytest.raises(NotAffine):
        divide(plus(whole, 1), 4, extents)


def test_every_pointwise_text_names_its_operands():
    for target, text in TEXTS.items():
        count = sum(a.type.kind() in ("TensorType", "NumberType") for a in target._schema.arguments if a.name != "alpha")
        assert all(f"{{{n}}}" in text for n in range(count)), target


@pytest.fixture
def tf32_allowed():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
def test_products_are_made_as_the_library_says_where_the_process_allows_it(tf32_allowed, products):
    library = Library()
    library.products = products
    rule, inputs = operator_of(load("delta_net")), sample(load("delta_net"), 33)
    with torch.no_grad():
        torch.testing.assert_close(fused_operator(rule, library)(inputs), rule(inputs), rtol=1e-2, atol=1e-2)
    assert any(f'input_precision="{products}"' in text for text in library.kernels)


@pytest.mark.parametrize(("exact_with", "used"), [("tf32", "tf32"), ("tf32x3", "tf32x3"), ("nothing", None)])
def test_finer_products_are_tried_where_rounding_weighs_much(monkeypatch, exact_with, used):
    rule, tried = operator_of(load("delta_net")), []

    def compiled(operator, library):
        tried.append(library.products)
        return operator if library.products == exact_with else lambda inputs: 1.1 * operator(inputs)

    monkeypatch.setattr("evaluator.fusion.capture.fused_operator", compiled)
    inputs = sample(load("delta_net"), 33)
    if used is None:
        with pytest.raises(faster.Inexact, match=r"o is 1\.0e-01 away from float32 products, eager code 0\.0e"):
            faster._as_exact(rule, inputs, Library())
    else:
        assert faster._as_exact(rule, inputs, Library()) is rule
    assert tried == ["tf32", "tf32x3"][: 1 if used == "tf32" else 2]


def test_an_operator_is_traced_once_for_settings_of_equal_shapes():
    rule, library, calls = operator_of(load("delta_net")), Library(), []

    def counted(inputs):
        calls.append(inputs["q"].shape)
        return rule(inputs)

    compiled = faster._as_exact(counted, sample(load("delta_net"), 33), library)
    traced = len(calls)
    assert faster._as_exact(counted, sample(load("delta_net"), 33, seed=1), library) is compiled
    assert len(calls) - traced == 4 < traced  # the eager results which compiled ones are held to
    faster._as_exact(counted, sample(load("delta_net"), 40), library)
    assert len(calls) - traced > 8  # other shapes are traced anew


def counts(i):
    return torch.arange(i["v"].shape[2])[:, None]


ODD = {
    "a tensor of one number": lambda i: i["v"] * torch.tensor(0.5) + torch.tensor([0.25]),
    "zeros written into a part": lambda i: torch.cat([i["v"]]).index_fill(2, torch.tensor(0), 0.0) * i["q"],
    "logical operations on whole numbers": lambda i: i["v"] * torch.logical_and(counts(i) % 4, counts(i) % 3) - torch.logical_or(counts(i) % 2, 0 * counts(i)).float(),
    "hash codes beyond 32 bits": lambda i: i["v"] * (((i["q"] * 100).long() * 2654435761 >> 7) & 15).float(),
    "a large count": lambda i: i["v"] * (counts(i) * 2654435761 % 1000).float(),
    "signs that alternate": lambda i: i["v"] * (-1.0) ** counts(i),
    "a high power": lambda i: (i["q"] - 0.3) ** 7 + (2.0 + i["k"]) ** -3,
    "a higher one": lambda i: (i["q"] - 0.3) ** 18,
    "powers of two tensors": lambda i: (i["q"] - 0.3) ** (counts(i) % 5).float() + (i["v"].abs() + 1e-3) ** i["k"].abs(),
    "nothing to the power of nothing": lambda i: torch.relu(i["q"]) ** torch.relu(i["k"]).detach() + i["v"],
    "a sum of whole numbers": lambda i: i["v"] * (i["q"] > 0).cumsum(-1).float(),
    "a sum in another type": lambda i: i["v"].cumsum(-1, dtype=torch.float64).float() * i["k"],
    "padding with infinity": lambda i: torch.softmax(F.pad(i["q"], (0, 3), value=-math.inf), -1)[..., :-3] * i["v"],
    "a number of bits": lambda i: i["v"] * ((i["q"] > 0).sum(-1, keepdim=True) >> 1).float(),
}


@pytest.mark.parametrize("T", [1, 21])
@pytest.mark.parametrize("name", ODD)
def test_what_kernels_cannot_say_exactly_is_left_to_aten(name, T):
    agree(ODD[name], sample(None, T))
