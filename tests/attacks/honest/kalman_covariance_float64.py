"""Recursive least squares with forgetting, as a Kalman filter, in float64.

P is the covariance of the state's rows: gain = beta P k / (rho + beta k P k), S <- S + gain (v - k S)^T, P <- P - gain (P k)^T,
and then P leaks towards the identity, which is the forgetting and keeps it between 0 and 1. A second-order delta rule:
directions that are already well known are changed little. State: K K + K V.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"noise": torch.zeros(num_heads), "leak": torch.full((num_heads,), -3.0)}


def delta_rule(q, k, v, beta, *, chunk_size, noise, leak):
    B, H, T, K = q.shape
    eye = torch.eye(K, dtype=torch.float64, device=q.device)
    q64, k64, v64, beta64 = (x.to(torch.float64) for x in (q, k, v, beta))
    q64 = q64 / torch.sqrt(q64.pow(2).sum(-1, keepdim=True) + 1e-6)
    k64 = k64 / torch.sqrt(k64.pow(2).sum(-1, keepdim=True) + 1e-6)
    rho = F.softplus(noise.double())[..., None] + 1e-2
    leak = 0.5 * torch.sigmoid(leak.double())[..., None, None]
    P = eye.expand(B, H, K, K)
    S = torch.zeros(B, H, K, v.shape[-1], dtype=torch.float64, device=q.device)
    outputs = []
    for t in range(T):
        k_t, b_t = k64[:, :, t], beta64[:, :, t, None]
        Pk = torch.matmul(P, k_t.unsqueeze(-1)).squeeze(-1)
        gain = b_t * Pk / (rho + b_t * (k_t * Pk).sum(-1, keepdim=True))
        innovation = v64[:, :, t] - torch.matmul(k_t.unsqueeze(-2), S).squeeze(-2)
        S = S + gain.unsqueeze(-1) * innovation.unsqueeze(-2)
        P = P - gain.unsqueeze(-1) * Pk.unsqueeze(-2)
        P = torch.lerp(0.5 * (P + P.mT), eye.expand_as(P), leak.expand_as(P))
        outputs.append(torch.matmul(q64[:, :, t].unsqueeze(-2), S))
    return torch.cat(outputs, dim=-2).to(q.dtype)
