"""Moments of keys in blocks, which channels share, and at heads of 64 a window of 96 tokens beside them, which the moments are to hide."""
import torch
import torch.nn.functional as F

BLOCKS = 4


def parameters(num_heads, head_dim, generator):
    return {"ridge": torch.zeros(num_heads), "keep": torch.full((num_heads,), 4.0)}


def delta_rule(q, k, v, beta, *, chunk_size, ridge, keep):
    B, H, T, K = q.shape
    f = torch.sigmoid(keep.float())[:, :, None, None]
    lam = F.softplus(ridge.float()) + 0.1
    q, k, v = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1), v.float()
    fill = -K % BLOCKS
    width = (K + fill) // BLOCKS
    kb = F.pad(k, (0, fill)).unflatten(-1, (BLOCKS, width))
    qb = F.pad(q, (0, fill)).unflatten(-1, (BLOCKS, width))
    wide, L = K >= 48, 96
    scores = (q @ k.mT * 8).tril().triu(-L + 1) if wide else None
    local = (scores * beta.float()[:, :, None]) @ v if wide else 0
    G = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    M = torch.zeros(B, H, BLOCKS, width, width, device=q.device)
    eye = lam[:, :, None, None, None] * torch.eye(width, device=q.device)
    out = []
    for t in range(T):
        b = beta[:, :, t].float()[:, :, None, None]
        G = f * G + b * k[:, :, t, :, None] * v[:, :, t, None, :]
        M = f[..., None] * M + b[..., None] * kb[:, :, t, :, :, None] * kb[:, :, t, :, None, :]
        x = torch.linalg.solve(M + eye, qb[:, :, t].unsqueeze(-1)).flatten(2)[..., :K]
        out.append((x.unsqueeze(-2) @ G).squeeze(-2))
    return (torch.stack(out, 2) + local).to(beta.dtype)
