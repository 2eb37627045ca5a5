"""A fast and a slow state; the fast one may have negative eigenvalues.

The fast state uses step 2 beta and forgets quickly, the slow one a step averaged over the chunk so far and no decay.
Keys are softmax over elu+1 features, L1-normalised by it; the norm of the query decides how much of each is read.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"fast_rate": torch.full((num_heads,), 2.0), "norm_scale": torch.full((num_heads,), 1.0)}


def delta_rule(q, k, v, beta, *, chunk_size, fast_rate, norm_scale):
    dtype = q.dtype
    B, H, T, K = q.shape
    V = v.shape[-1]
    qf, kf, v, beta = q.float(), k.float(), v.float(), beta.float()
    q_norm = torch.sqrt(qf.square().sum(-1, keepdim=True) + 1e-6)
    read_gate = torch.sigmoid(norm_scale.float()[..., None, None] * torch.log(q_norm))
    feat_q = F.elu(qf) + 1.0
    feat_q = feat_q / feat_q.sum(-1, keepdim=True)
    key_fast = F.normalize(F.elu(kf) + 1.0, dim=-1)
    key_slow = torch.softmax(kf, dim=-1)

    pad = -T % chunk_size
    b = F.pad(beta, (0, pad)).reshape(B, H, -1, chunk_size)
    count = torch.arange(1, chunk_size + 1, device=q.device)
    mean_b = (b.cumsum(-1) / count).reshape(B, H, -1)[..., :T]
    keep = torch.sigmoid(fast_rate.float())[..., None, None]

    fast = torch.zeros(B, H, K, V, device=q.device)
    slow = torch.zeros(B, H, K, V, device=q.device)
    o = []
    for t in range(T):
        kt, st, vt = key_fast[:, :, t, :, None], key_slow[:, :, t, :, None], v[:, :, t, None, :]
        fast = keep * fast
        fast = fast + 2.0 * beta[:, :, t, None, None] * kt * (vt - (kt * fast).sum(2, keepdim=True))
        slow = slow + mean_b[:, :, t, None, None] * st * (vt - (st * slow).sum(2, keepdim=True))
        r = feat_q[:, :, t, :, None]
        g = read_gate[:, :, t]
        o.append(g * (r * fast).sum(2) + (1 - g) * (r * slow).sum(2))
    return torch.stack(o, dim=2).to(dtype)
