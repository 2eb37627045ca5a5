"""A window of softmax attention beside the state.

The last 8 tokens are read by softmax attention, exactly, and everything by the delta state; a projection mixes the two.
The state then need not serve the local copying that a window does better.
State: K V + 8 (K + V) numbers a head, whatever chunk_size is.
"""

import math

import torch
import torch.nn.functional as F

WINDOW = 8


def projections(num_heads, head_dim):
    return {"mix": 1}


def parameters(num_heads, head_dim, generator):
    return {"temperature": torch.full((num_heads,), 1.5), "distance_bias": torch.zeros(num_heads, WINDOW)}


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def attend(q, keys, values, absent, temperature, distance_bias):
    """q [..., K], keys [..., W, K], values [..., W, V], oldest first."""
    score = (keys @ q.unsqueeze(-1)).squeeze(-1) * temperature + distance_bias
    return (score.masked_fill(absent, -math.inf).softmax(-1).unsqueeze(-2) @ values).squeeze(-2)


def delta_rule(q, k, v, beta, *, chunk_size, mix, temperature, distance_bias):
    B, H, T, K = q.shape
    q, k, v_, b = unit(q.float()), unit(k.float()), v.float(), beta.float()[..., None]

    windows = [F.pad(x, (0, 0, WINDOW - 1, 0)).unfold(2, WINDOW, 1).mT for x in (k, v_)]
    age = WINDOW - 1 - torch.arange(WINDOW, device=q.device)
    absent = age > torch.arange(T, device=q.device)[:, None]
    temp = F.softplus(temperature.float())[..., None, None] * 4
    local = attend(q, *windows, absent, temp, distance_bias.float()[:, :, None])

    S, old = v_.new_zeros(B, H, K, v.shape[-1]), []
    for lo in range(0, T, chunk_size):
        qc, kc, vc, bc = (x[:, :, lo : lo + chunk_size] for x in (q, k, v_, b))
        u = torch.linalg.solve_triangular((bc * kc @ kc.mT).tril(-1), bc * (vc - kc @ S), upper=False, unitriangular=True)
        old.append(qc @ S + (qc @ kc.mT).tril() @ u)
        S = S + kc.mT @ u
    m = torch.sigmoid(mix.float())
    return ((1 - m) * local + m * torch.cat(old, 2)).to(beta.dtype)


def recurrence(q_t, k_t, v_t, beta_t, state, mix, temperature, distance_bias):
    q, k, v = unit(q_t.float()), unit(k_t.float()), v_t.float()
    if state is None:
        state = (k.new_zeros(*k.shape, v.shape[-1]), k[..., None, :][..., :0, :], v[..., None, :][..., :0, :])
    S, keys, values = state
    keys = torch.cat((keys, k[..., None, :]), -2)[..., -WINDOW:, :]
    values = torch.cat((values, v[..., None, :]), -2)[..., -WINDOW:, :]
    absent = torch.zeros(keys.shape[-2], dtype=torch.bool, device=k.device)
    bias = distance_bias.float()[..., WINDOW - keys.shape[-2] :]
    local = attend(q, keys, values, absent, F.softplus(temperature.float())[..., None] * 4, bias)
    u = beta_t.float()[..., None] * (v - (k[..., None, :] @ S).squeeze(-2))
    S = S + k[..., :, None] * u[..., None, :]
    m = torch.sigmoid(mix.float())
    return ((1 - m) * local + m * (q[..., None, :] @ S).squeeze(-2)).to(q_t.dtype), (S, keys, values)
