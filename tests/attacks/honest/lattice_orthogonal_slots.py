"""Lattice: slots on the unit sphere, each written only with what is orthogonal to it.

A slot's update is projected to the tangent of its current value, then the slot is renormalised: information is added
where it is new. Slots are the rows of the K x V state; their weights are the normalised key.
"""

import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V = v.shape[-1]
    q32 = torch.softmax(q.float(), dim=-1)
    k32 = F.normalize(k.float(), dim=-1, eps=1e-6)
    v32 = v.float()
    v32 = v32 / (1.0 + v32.norm(dim=-1, keepdim=True))
    b32 = beta.float()
    # slots start at distinct fixed directions
    S = torch.eye(K, V, device=q.device).expand(B, H, K, V)
    out = []
    for t in range(T):
        read = torch.einsum("bhk,bhkv->bhv", k32[:, :, t], S)
        h = v32[:, :, t] - read
        g = torch.einsum("bhk,bhv->bhkv", k32[:, :, t], h)
        radial = (g * S).sum(dim=-1, keepdim=True)
        g = g - radial * S
        S = S + b32[:, :, t, None, None] * g
        S = S / torch.sqrt((S * S).sum(dim=-1, keepdim=True) + 1e-6)
        out.append(torch.einsum("bhk,bhkv->bhv", q32[:, :, t], S))
    return torch.stack(out, dim=2).to(q.dtype)
