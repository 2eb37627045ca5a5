"""A gated delta rule whose state is stored as a pair of bfloat16 numbers, hi + lo.

After each token the state is rounded to bfloat16, and what was rounded away is stored in a second bfloat16 number: about
16 bits of mantissa at the memory of one float32. The rounding has no derivative, and the cast's gradient passes it:
lo = S - hi has none, hi has that of S. All arithmetic on the sum is float32. State: 2 K V half-size numbers.
"""

import torch


def projections(num_heads, head_dim):
    return {"fade": 1}


def split(S):
    hi = S.to(torch.bfloat16)
    lo = (S - hi.float()).to(torch.bfloat16)
    return hi, lo


def delta_rule(q, k, v, beta, *, chunk_size, fade):
    B, H, T, K = q.shape
    q32, k32 = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    keep = torch.sigmoid(fade.float() + 4.0)
    hi = lo = torch.zeros(B, H, K, v.shape[-1], dtype=torch.bfloat16, device=q.device)
    outputs = []
    for t in range(T):
        S = (hi.float() + lo.float()) * keep[:, :, t, :, None]
        key = k32[:, :, t, None]
        S = S + key.mT @ (beta[:, :, t, None, None].float() * (v[:, :, t, None].float() - key @ S))
        hi, lo = split(S)
        outputs.append(q32[:, :, t, None] @ hi.float() + q32[:, :, t, None] @ lo.float())
    return torch.cat(outputs, dim=2).to(q.dtype)
