"""Huber loss for the online regression.

The delta rule is a gradient step on a squared error; outliers move the state most. With a Huber loss whose threshold
is learned per head the error vector is clipped to that norm, and only its direction counts beyond.
"""

import torch
import torch.nn.functional as F
from typing import Optional, Tuple


def parameters(num_heads: int, head_dim: int, generator: torch.Generator):
    return {"log_threshold": torch.full((num_heads,), 0.5)}


def huber_clip(err: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    norm = torch.sqrt(err.square().sum(dim=-1, keepdim=True) + 1e-8)
    return err * torch.clamp(threshold / norm, max=1.0)


def token_step(S, q_t, k_t, v_t, b_t, threshold):
    pred = torch.einsum("bhkv,bhk->bhv", S, k_t)
    err = huber_clip(v_t - pred, threshold)
    S = S + torch.einsum("bhk,bhv->bhkv", k_t * b_t, err)
    return S, torch.einsum("bhkv,bhk->bhv", S, q_t)


def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    *,
    chunk_size: int,
    log_threshold: torch.Tensor,
) -> torch.Tensor:
    B, H, T, K = q.shape
    V = v.shape[-1]
    threshold = log_threshold.float().exp().unsqueeze(-1)
    qn = F.normalize(q.float(), dim=-1) / (K ** 0.5)
    kn = F.normalize(k.float(), dim=-1)
    vf = v.float()
    bf = beta.float().unsqueeze(-1)

    S = torch.zeros((B, H, K, V), dtype=torch.float32, device=q.device)
    outputs = []
    for start in range(0, T, chunk_size):
        for t in range(start, min(start + chunk_size, T)):
            S, o_t = token_step(S, qn[:, :, t], kn[:, :, t], vf[:, :, t], bf[:, :, t], threshold)
            outputs.append(o_t)
    return torch.stack(outputs, dim=2).to(q.dtype)


def recurrence(
    q_t: torch.Tensor, k_t: torch.Tensor, v_t: torch.Tensor, beta_t: torch.Tensor,
    state: Optional[torch.Tensor], log_threshold: torch.Tensor,
) -> Tuple[torch.Tensor, torch.Tensor]:
    K = q_t.shape[-1]
    qn = F.normalize(q_t.float(), dim=-1) / (K ** 0.5)
    kn = F.normalize(k_t.float(), dim=-1)
    if state is None:
        state = torch.zeros((*kn.shape, v_t.shape[-1]), dtype=torch.float32, device=q_t.device)
    threshold = log_threshold.float().exp().unsqueeze(-1)
    state, o_t = token_step(state, qn, kn, v_t.float(), beta_t.float().unsqueeze(-1), threshold)
    return o_t.to(q_t.dtype), state
