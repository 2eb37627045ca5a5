"""DeltaProduct with two Householder steps per token.

Every token makes two generalised Householder updates instead of one: the first with its own key, the second with
a projected key. beta in (0, 2) permits negative eigenvalues, so that the product of two reflections can be a rotation.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"k_second": head_dim, "b_second": 1}


def _step(S, k, v, b):
    # S: [B,H,K,V]; k: [B,H,K]; v: [B,H,V]; b: [B,H]
    pred = (S * k.unsqueeze(-1)).sum(dim=-2)
    err = (v - pred) * b.unsqueeze(-1)
    return S + k.unsqueeze(-1) * err.unsqueeze(-2)


def delta_rule(q, k, v, beta, *, chunk_size, k_second, b_second):
    B, H, T, K = q.shape
    V = v.shape[-1]
    qf, kf, k2, vf = q.float(), k.float(), F.silu(k_second.float()), v.float()
    qf = qf / (qf.norm(dim=-1, keepdim=True) + 1e-6) * (K ** -0.5)
    kf = F.normalize(kf, p=2, dim=-1)
    k2 = F.normalize(k2, p=2, dim=-1)
    b1 = 2.0 * beta.float()
    b2 = 2.0 * torch.sigmoid(b_second.float()).squeeze(-1)

    S = torch.zeros(B, H, K, V, dtype=torch.float32, device=q.device)
    o = torch.zeros(B, H, T, V, dtype=torch.float32, device=q.device)
    zero = torch.zeros_like(vf[:, :, 0])
    for t in range(T):
        S = _step(S, k2[:, :, t], zero, b2[:, :, t])
        S = _step(S, kf[:, :, t], vf[:, :, t], b1[:, :, t])
        o[:, :, t] = torch.einsum("bhk,bhkv->bhv", qf[:, :, t], S)
    return o.to(q.dtype)
