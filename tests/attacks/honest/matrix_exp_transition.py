"""A learned orthogonal transition: the state turns by exp(skew) between tokens (matrix exponential, low rank).

S <- R S with R = exp(a b^T - b a^T), a and b learned per head; then the delta rule. a random, b small.
"""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {
        "a": torch.randn(num_heads, head_dim, 2, generator=generator) * head_dim ** -0.5,
        "b": torch.randn(num_heads, head_dim, 2, generator=generator) * 0.1 * head_dim ** -0.5,
    }


def delta_rule(q, k, v, beta, *, chunk_size, a, b):
    B, H, T, K = q.shape
    W = a.float() @ b.float().mT
    R = torch.linalg.matrix_exp(W - W.mT)
    qf = F.normalize(q.float(), dim=-1) * K ** -0.5
    kf = F.normalize(k.float(), dim=-1)
    S = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    ys = []
    for t in range(T):
        S = R @ S
        e = v[:, :, t].float() - torch.einsum("bhkv,bhk->bhv", S, kf[:, :, t])
        S = torch.addcmul(S, kf[:, :, t].unsqueeze(-1), (beta[:, :, t].float().unsqueeze(-1) * e).unsqueeze(-2))
        ys.append(torch.einsum("bhkv,bhk->bhv", S, qf[:, :, t]))
    return torch.stack(ys, 2).to(q.dtype)
