"""A short sliding window beside the delta rule.

Softmax attention over the last eight tokens handles exact local copies; the delta rule's state handles the rest. A
learned gate per head mixes the two. The window is gathered by shifts, not by a T x T mask.
"""

import torch
import torch.nn.functional as F

WINDOW = 8


def parameters(num_heads, head_dim, generator):
    return {"mix": torch.zeros(num_heads), "window_bias": torch.zeros(num_heads, WINDOW)}


def shifted(x, W):
    """[B, H, T, D] -> [B, H, T, W, D]: tokens t, t - 1, .., t - W + 1, zeros before the first."""
    T = x.shape[2]
    x = F.pad(x, (0, 0, W - 1, 0))
    return torch.stack([x[:, :, W - 1 - j : W - 1 - j + T] for j in range(W)], dim=3)


def local_attention(q, k, v, bias):
    T = q.shape[2]
    scores = (q.unsqueeze(3) * shifted(k, WINDOW)).sum(-1) * q.shape[-1] ** 0.5 + bias.unsqueeze(2)
    age = torch.arange(WINDOW, device=q.device)
    pos = torch.arange(T, device=q.device)
    scores = scores.masked_fill(age[None, :] > pos[:, None], float("-inf"))
    return (scores.softmax(-1).unsqueeze(-1) * shifted(v, WINDOW)).sum(3)


def delta_rule(q, k, v, beta, *, chunk_size, mix, window_bias):
    B, H, T, K = q.shape
    V = v.shape[-1]
    dtype = q.dtype
    q, k = (F.normalize(x.float(), dim=-1, eps=1e-6) for x in (q, k))
    v, beta = v.float(), beta.float().unsqueeze(-1)
    local = local_attention(q, k, v, window_bias.float())

    C = chunk_size
    qc, kc, vc, bc = (F.pad(x, (0, 0, 0, -T % C)).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v, beta))
    eye = torch.eye(C, device=q.device)
    inv = torch.linalg.solve_triangular(eye + (bc * kc @ kc.mT).tril(-1), eye, upper=False)
    U, W_ = inv @ (bc * vc), inv @ (bc * kc)
    S = torch.zeros(B, H, K, V, device=q.device)
    o = []
    for n in range(qc.shape[2]):
        u = U[:, :, n] - W_[:, :, n] @ S
        o.append(qc[:, :, n] @ S + (qc[:, :, n] @ kc[:, :, n].mT).tril() @ u)
        S = S + kc[:, :, n].mT @ u
    far = torch.cat(o, 2)[:, :, :T]
    g = torch.sigmoid(mix.float())[:, :, None, None]
    return (g * local + (1 - g) * far).to(dtype)
