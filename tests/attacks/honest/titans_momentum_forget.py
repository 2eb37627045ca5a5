"""Titans' memory: surprise with momentum, and a forget gate.

M_t = eta_t M_{t-1} - theta_t grad_t ; S_t = (1 - alpha_t) S_{t-1} + M_t. Past surprise carries on for some tokens; the
gate alpha clears memory. theta is the layer's beta, alpha and eta are projections.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"alpha": 1, "eta": 1}


def delta_rule(q, k, v, beta, *, chunk_size, alpha, eta):
    B, H, T, K = q.shape
    V = v.shape[-1]
    dtype = q.dtype
    q, k, v = q.float(), k.float(), v.float()
    q = F.normalize(q, dim=-1) * K**-0.5
    k = F.normalize(k, dim=-1)
    alpha = torch.sigmoid(alpha.float() - 4.0)[..., None]
    eta = 0.9 * torch.sigmoid(eta.float())[..., None]
    theta = beta.float()[..., None, None] * (1 - eta)

    memory = torch.zeros(B, H, K, V, device=q.device)
    momentum = torch.zeros_like(memory)
    outputs = []
    for t in range(T):
        k_t = k[:, :, t].unsqueeze(-1)
        error = (k_t * memory).sum(-2, keepdim=True) - v[:, :, t].unsqueeze(-2)
        surprise = k_t * error
        momentum = eta[:, :, t] * momentum - theta[:, :, t] * surprise
        memory = (1 - alpha[:, :, t]) * memory + momentum
        outputs.append(torch.matmul(q[:, :, t].unsqueeze(-2), memory).squeeze(-2))
    return torch.stack(outputs, dim=2).to(dtype)
