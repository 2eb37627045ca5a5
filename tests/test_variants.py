"""What every variant that ships must be: causal, independent over rows and heads, finite, of the right shape."""

import importlib.util
import random
from pathlib import Path

import pytest
import torch

from evaluator import answers

VARIANTS = Path(__file__).parents[1] / "variants"
EVERY = (  # those that ship: a search adds its own to the same folder
    "adam_style_adaptive_state_update_after_output",
    "adam_style_moments_on_error_before_output",
    "adaptive_exponential_decay_on_state_before_and_after_prediction_per_chunk",
    "add_affine_free_layernorm_on_qk_before_l2norm",
    "add_error_based_sigmoid_gate_to_state_update_in_for_loop",
    "add_exponential_decay_to_S_before_update_in_chunk_loop",
    "add_momentum_to_state_update_after_output",
    "add_momentum_to_state_update_in_for_loop",
    "add_rope_to_keys_and_queries_before_l2norm",
    "add_softmax_to_intra_chunk_attention_in_for_loop",
    "delta_net",
    "gated_delta_net",
    "gla",
    "per_token_layernorm_on_q_and_k_before_chunking",
    "rmsnorm_on_error_per_chunk_before_state_update",
    "rope_softmax_intra_chunk_tanh_error",
    "row_norm_constrained_state_after_update",
    "sigmoid_gate_on_state_update_per_chunk_using_mean_beta",
    "softmax_attention",
    "softmax_intra_chunk_and_tanh_error_bounding",
    "softmax_normalised_intra_chunk_causal_attention",
    "softmax_rmsnorm_error_row_norm_state_after_update",
    "softmax_tanh_beta_gated_update",
    "softmax_weighted_error_per_value_dim",
    "tanh_on_error_before_state_update",
    "topk25_sparsify_error_before_state_update",
)
CHUNKED = [name for name in EVERY if name != "softmax_attention"]
STATE_ONLY = (
    "tanh_on_error_before_state_update",
    "sigmoid_gate_on_state_update_per_chunk_using_mean_beta",
    "adaptive_exponential_decay_on_state_before_and_after_prediction_per_chunk",
    "add_exponential_decay_to_S_before_update_in_chunk_loop",
    "add_error_based_sigmoid_gate_to_state_update_in_for_loop",
    "add_momentum_to_state_update_after_output",
    "add_momentum_to_state_update_in_for_loop",
    "adam_style_adaptive_state_update_after_output",
    "row_norm_constrained_state_after_update",
    "rmsnorm_on_error_per_chunk_before_state_update",
    "topk25_sparsify_error_before_state_update",
)
NO_MATTER_HOW_CHUNKED = (
    "delta_net",
    "gated_delta_net",
    "gla",
    "softmax_attention",
    "add_affine_free_layernorm_on_qk_before_l2norm",
    "add_rope_to_keys_and_queries_before_l2norm",
    "per_token_layernorm_on_q_and_k_before_chunking",
)
B, H, K, V = 2, 2, 8, 6


def load(name, form="naive"):
    spec = importlib.util.spec_from_file_location(f"{name}_{form}", VARIANTS / name / f"{form}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(module, T, seed=0, head_dim=K, value_dim=V):
    """Random q, k, v, beta and whatever the variant declares, by name."""
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, B, H, T, head_dim, generator=generator)
    v = torch.randn(B, H, T, value_dim, generator=generator)
    inputs = {"q": q, "k": k, "v": v, "beta": torch.rand(B, H, T, generator=generator)}
    widths = module.projections(H, head_dim) if hasattr(module, "projections") else {}
    for name in widths.keys() - {"output_gate"}:
        inputs[name] = torch.randn(B, H, T, widths[name], generator=generator)
    parameters = module.parameters(H, head_dim, generator) if hasattr(module, "parameters") else {}
    return inputs | {name: p.expand(B, *p.shape).clone() for name, p in parameters.items()}


def over_time(inputs, T, change):
    """Inputs with `change` applied to those that have a time axis (all but declared parameters)."""
    return {name: change(x) if x.dim() > 2 and x.shape[2] == T else x for name, x in inputs.items()}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_output_depends_on_no_later_token(name, seed):
    module, T = load(name), 80
    cut = random.Random(seed).randrange(1, T)
    inputs = inputs_of(module, T, seed)
    before = module.delta_rule(**inputs, chunk_size=32)[:, :, :cut]

    def disturbed(x):
        noise = 1 + x[:, :, cut:].abs() * 10
        return torch.cat((x[:, :, :cut], noise), dim=2)

    disturbed_inputs = over_time(inputs, T, disturbed)
    disturbed_inputs["beta"] = disturbed_inputs["beta"].clamp(max=1)
    torch.testing.assert_close(module.delta_rule(**disturbed_inputs, chunk_size=32)[:, :, :cut], before)
    prefix = over_time(inputs, T, lambda x: x[:, :, :cut])
    torch.testing.assert_close(module.delta_rule(**prefix, chunk_size=32), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_rows_and_heads_know_nothing_of_each_other(name):
    module = load(name)
    inputs = inputs_of(module, 40)
    whole = module.delta_rule(**inputs, chunk_size=32)
    row = module.delta_rule(**{n: x[1:] for n, x in inputs.items()}, chunk_size=32)
    head = module.delta_rule(**{n: x[:, 1:] for n, x in inputs.items()}, chunk_size=32)
    torch.testing.assert_close(row, whole[1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head, whole[:, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("T", [1, 31, 32, 33, 127, 128])
def test_outputs_and_gradients_are_finite_and_of_the_right_shape_and_type(name, T):
    module = load(name)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = {n: x.to(dtype).requires_grad_() for n, x in inputs_of(module, T).items()}
        o = module.delta_rule(**inputs, chunk_size=32)
        assert o.shape == (B, H, T, V)
        assert o.dtype == dtype
        assert o.isfinite().all()
        o.float().square().sum().backward()
        if name != "softmax_attention":
            assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs.values())


@pytest.mark.parametrize("name", CHUNKED)
def test_gradients_reach_every_input_and_survive_zeros_and_repeated_keys(name):
    module, T = load(name), 70
    inputs = {n: x.requires_grad_() for n, x in inputs_of(module, T).items()}
    module.delta_rule(**inputs, chunk_size=32).square().sum().backward()
    assert all(x.grad.abs().max() > 0 for x in inputs.values())
    for fill in (0.0, 1.0):
        inputs = over_time(inputs_of(module, T), T, lambda x, fill=fill: torch.full_like(x, fill))
        inputs = {n: x.requires_grad_() for n, x in inputs.items()}
        o = module.delta_rule(**inputs, chunk_size=32)
        o.sum().backward()
        assert o.isfinite().all()
        assert all(x.grad.isfinite().all() for x in inputs.values())


@pytest.mark.parametrize("name", EVERY)
def test_chunk_size_is_used_unless_the_function_has_no_chunks(name):
    module = load(name)
    inputs = inputs_of(module, 70)
    small, large = (module.delta_rule(**inputs, chunk_size=C) for C in (16, 32))
    assert torch.allclose(small, large, atol=1e-4) == (name in NO_MATTER_HOW_CHUNKED)


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_any_chunk_size_will_do(name, chunk_size):
    module = load(name)
    assert module.delta_rule(**inputs_of(module, 20), chunk_size=chunk_size).isfinite().all()


@pytest.mark.parametrize("name", STATE_ONLY)
def test_within_one_chunk_variants_that_touch_only_the_state_are_the_baseline(name):
    for T in (1, 17, 32):
        inputs = inputs_of(load("delta_net"), T)
        ours, baseline = (load(n).delta_rule(**inputs, chunk_size=32) for n in (name, "delta_net"))
        torch.testing.assert_close(ours, baseline, atol=0, rtol=0)
    inputs = inputs_of(load("delta_net"), 70)
    ours, baseline = (load(n).delta_rule(**inputs, chunk_size=32) for n in (name, "delta_net"))
    assert not torch.allclose(ours, baseline, atol=1e-6)


def plain_delta_rule(q, k, v, beta):
    """S <- S + beta k (v - k S)^T, o = q S, one token after the other in float64."""
    q, k, v, beta = (x.double() for x in (q, k, v, beta))
    q, k = (x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    S, outputs = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        error = v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], S)
        S = S + torch.einsum("bh,bhk,bhv->bhkv", beta[:, :, t], k[:, :, t], error)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t] * q.shape[-1] ** -0.5, S))
    return torch.stack(outputs, dim=2)


@pytest.mark.parametrize("T", sorted(random.Random(0).sample(range(1, 200), 5)))
def test_delta_net_is_the_token_recurrence(T):
    inputs = inputs_of(load("delta_net"), T, seed=T)
    o = load("delta_net").delta_rule(**inputs, chunk_size=32)
    torch.testing.assert_close(o.double(), plain_delta_rule(**inputs), atol=2e-6, rtol=1e-5)


def test_the_inverse_is_exact_for_repeated_keys():
    for C in (1, 2, 3, 32, 37, 64):
        L = torch.full((2, C, C), 0.999).tril(-1)
        inverse = torch.linalg.inv(torch.eye(C, dtype=torch.float64) + L.double())
        torch.testing.assert_close(
            load("delta_net").invert_unit_lower(L).double(), inverse, atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("name", [name for name in EVERY if hasattr(load(name), "recurrence")])
def test_the_recurrence_agrees_in_outputs_and_gradients(name):
    module, T = load(name), 45
    inputs = {n: x.requires_grad_() for n, x in inputs_of(module, T).items()}
    at_once = module.delta_rule(**inputs, chunk_size=32)
    declared = {n: x for n, x in inputs.items() if n not in ("q", "k", "v", "beta")}
    state, outputs = None, []
    for t in range(T):
        q, k, v, beta = (inputs[n][:, :, t] for n in ("q", "k", "v", "beta"))
        now = over_time(declared, T, lambda x, t=t: x[:, :, t])
        o, state = module.recurrence(q, k, v, beta, state, **now)
        outputs.append(o)
    by_token = torch.stack(outputs, dim=2)
    torch.testing.assert_close(by_token, at_once, atol=1e-5, rtol=1e-4)
    grad = torch.randn(at_once.shape, generator=torch.Generator().manual_seed(1))
    pairs = zip(
        torch.autograd.grad(at_once, inputs.values(), grad),
        torch.autograd.grad(by_token, inputs.values(), grad),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "softmax_attention"])
def test_what_is_kept_for_the_backward_pass_is_found_in_the_graph_where_torch_does_not_tell(monkeypatch, name):
    module = load(name)
    told = answers._kept_for_backward(module, inputs_of(module, 80), 32)

    class Untold:
        def __init__(self, *_):
            raise RuntimeError("torch.func.{grad, vjp, jacrev, hessian} don't yet support saved tensor hooks")

    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", Untold)
    found = answers._kept_for_backward(module, inputs_of(module, 80), 32)
    assert 0.99 * told <= found <= 1.05 * told  # numbers of one element beside tensors
