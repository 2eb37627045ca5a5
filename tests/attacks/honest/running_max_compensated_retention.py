"""Retention whose keys are measured against the longest key so far, summed with Kahan's compensation.

k_t is divided by the running maximum of the key lengths (a cummax over time), which keeps relative lengths as a signal and
still bounds them by one. S <- gamma S + k (beta v)^T with a learned gamma per head. Between chunks the sum is compensated:
c holds what the last addition rounded away, and its derivative is zero. State: 2 K V + 1.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"log_span": torch.linspace(2.0, 6.0, num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, log_span):
    B, H, T, K = q.shape
    log_gamma = -torch.exp(-F.softplus(log_span.float()))[:, :, None, None]  # between -1 and 0
    k32 = k.float()
    length = torch.sqrt(torch.sum(k32 * k32, dim=-1) + 1e-6)
    longest, _ = torch.cummax(length, dim=-1)
    k32 = k32 / longest.unsqueeze(-1)
    q32 = q.float() / torch.sqrt(torch.sum(q.float() ** 2, dim=-1, keepdim=True) + 1e-6)
    v32 = v.float() * beta.float()[..., None]
    S = c = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    outputs = []
    for start in range(0, T, chunk_size):
        qc, kc, vc = (x[:, :, start : start + chunk_size] for x in (q32, k32, v32))
        n = qc.shape[2]
        i = torch.arange(n, device=q.device, dtype=torch.float32)
        mask = torch.exp(log_gamma * (i[:, None] - i).clamp(min=0)).tril()
        outputs.append((qc @ kc.mT * mask) @ vc + torch.exp(log_gamma * (i[:, None] + 1)) * (qc @ (S - c)))
        fade = torch.exp(log_gamma * n)
        new = kc.mT @ (vc * torch.exp(log_gamma * (n - 1 - i)[:, None]))
        S, c = S * fade, c * fade
        y = new - c
        total = S + y
        c = (total - S) - y
        S = total
    return torch.cat(outputs, dim=2).to(q.dtype)
