"""Titans: past surprise as momentum, momentary surprise as a gradient, and forgetting, token by token.

M <- eta M + (1 - eta/2) beta k (v - k S)^T, S <- (1 - alpha) S + M, o = q S. eta and alpha are read from the input;
eta stays below 0.8. The state is S and M, 2 K V numbers a head. beta_t scales a step whose key has length one.
"""

import torch


def projections(num_heads, head_dim):
    return {"eta": 1, "alpha": 1}


def parameters(num_heads, head_dim, generator):
    return {"alpha_bias": torch.full((num_heads,), -4.0)}


def delta_rule(q, k, v, beta, *, chunk_size, eta, alpha, alpha_bias):
    q32, k32 = (x.float() / (x.float().square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    eta = 0.8 * torch.sigmoid(eta.float())
    forget = 0.5 * torch.sigmoid(alpha.float() + alpha_bias.float()[..., None, None])
    theta = (1 - eta / 2) * beta.float().unsqueeze(-1)
    S = M = q32.new_zeros(q.shape[0], q.shape[1], q.shape[3], v.shape[3])
    outs = []
    for t in range(q.shape[2]):
        k_t = k32[:, :, t : t + 1]  # [B, H, 1, K]
        surprise = v[:, :, t : t + 1].float() - k_t @ S
        M = eta[:, :, t, None] * M + k_t.mT @ (theta[:, :, t, None] * surprise)
        S = (1 - forget[:, :, t, None]) * S + M
        outs.append(q32[:, :, t : t + 1] @ S)
    return torch.cat(outs, 2).type_as(q)
