"""DeltaProduct, three Householders, interleaved chunkwise form.

A token becomes three pseudo-tokens with keys k * w_j (w_j learned per head) and the same value at decreasing step
sizes. The sequence of 3 T pseudo-tokens is run through the usual WY form; the query reads after the third.
"""

import torch
import torch.nn.functional as F

NUM_HOUSEHOLDER = 3


def parameters(num_heads, head_dim, generator):
    w = 1.0 + 0.5 * torch.randn(num_heads, NUM_HOUSEHOLDER, head_dim, generator=generator)
    return {"key_mix": w, "step_logit": torch.zeros(num_heads, NUM_HOUSEHOLDER)}


def delta_rule(q, k, v, beta, *, chunk_size, key_mix, step_logit):
    B, H, T, K = q.shape
    V = v.shape[-1]
    R = NUM_HOUSEHOLDER
    dtype = q.dtype
    q, k, v, beta = map(lambda x: x.float(), (q, k, v, beta))

    q = F.normalize(q, dim=-1, eps=1e-6) * K**-0.5
    ks = F.normalize(k.unsqueeze(3) * key_mix.float().unsqueeze(2), dim=-1, eps=1e-6)  # [B, H, T, R, K]
    steps = torch.sigmoid(step_logit.float())[:, :, None, :] * beta.unsqueeze(-1)  # [B, H, T, R]
    vs = v.unsqueeze(3).expand(B, H, T, R, V)

    pad = -T % chunk_size
    if pad:
        q = F.pad(q, (0, 0, 0, pad))
        ks = F.pad(ks, (0, 0, 0, 0, 0, pad))
        vs = F.pad(vs, (0, 0, 0, 0, 0, pad))
        steps = F.pad(steps, (0, 0, 0, pad))
    N, C = (T + pad) // chunk_size, chunk_size
    q = q.view(B, H, N, C, K)
    ks = ks.reshape(B, H, N, C * R, K)
    vs = vs.reshape(B, H, N, C * R, V)
    steps = steps.reshape(B, H, N, C * R, 1)

    L = torch.tril((ks * steps) @ ks.transpose(-1, -2), diagonal=-1)
    I = torch.eye(C * R, device=q.device)
    inv = torch.linalg.solve_triangular(I + L, I.expand_as(L), upper=False)
    U, W = inv @ (vs * steps), inv @ (ks * steps)

    token = torch.arange(C, device=q.device).unsqueeze(1)
    sub = torch.arange(C * R, device=q.device).unsqueeze(0) // R
    A = (q @ ks.transpose(-1, -2)).masked_fill(sub > token, 0.0)

    S = torch.zeros(B, H, K, V, device=q.device)
    outputs = []
    for n in range(N):
        u = U[:, :, n] - W[:, :, n] @ S
        outputs.append(q[:, :, n] @ S + A[:, :, n] @ u)
        S = S + ks[:, :, n].transpose(-1, -2) @ u
    return torch.cat(outputs, dim=2)[:, :, :T].to(dtype)
