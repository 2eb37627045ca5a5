"""TTT-MLP with torch.func.

A two-layer memory is updated once every 8 tokens by a clipped gradient of its reconstruction loss.
"""
import torch
import torch.nn.functional as F
from torch.func import grad, vmap


def parameters(num_heads, head_dim, generator):
    s = head_dim ** -0.5
    return {
        "w1": s * torch.randn(num_heads, head_dim, head_dim, generator=generator),
        "w2": s * torch.randn(num_heads, head_dim, head_dim, generator=generator),
    }


def apply_mlp(w1, w2, x):
    return F.gelu(x @ w1) @ w2


def inner_loss(w1, w2, x, y, lr):
    return 0.5 * (lr * (apply_mlp(w1, w2, x) - y).pow(2).mean(-1)).mean()


def soft_clip(g):
    return g / (1 + g.norm(dim=(-2, -1), keepdim=True))


def delta_rule(q, k, v, beta, *, chunk_size, w1, w2):
    B, H, T, K = q.shape
    n = lambda x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-5)
    fl = lambda x: x.float().flatten(0, 1)
    q_, k_, v_, b_ = fl(n(q.float())), fl(n(k.float())), fl(v), fl(beta)
    w1, w2 = fl(w1), fl(w2)
    g = vmap(grad(inner_loss, argnums=(0, 1)))
    step = min(8, chunk_size)
    out = []
    for i in range(0, T, step):
        sl = slice(i, i + step)
        out.append(apply_mlp(w1, w2, q_[:, sl]) + q_[:, sl].mul(k_[:, sl]).sum(-1, keepdim=True) * v_[:, sl])
        d1, d2 = g(w1, w2, k_[:, sl], v_[:, sl], b_[:, sl])
        w1 = w1 * 0.99 - 0.5 * soft_clip(d1)
        w2 = w2 * 0.99 - 0.5 * soft_clip(d2)
    return torch.cat(out, 1).unflatten(0, (B, H)).to(q.dtype)
