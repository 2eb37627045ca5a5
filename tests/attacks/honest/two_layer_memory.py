"""A memory of two layers."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """A small network silu(k W) U, K x K and K x V, that takes one gradient step after each chunk; reads add linear attention to the own chunk."""
    dtype, T, K, V = q.dtype, q.shape[2], q.shape[-1], v.shape[-1]
    W = torch.eye(K, device=q.device).expand(*q.shape[:2], K, K)
    U, out = q.new_zeros(*q.shape[:2], K, V, dtype=torch.float32), []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))):
        q_i, k_i = unit(q_i), unit(k_i)
        a = 2 * k_i @ W
        s = torch.sigmoid(a)
        h = a * s
        e = b * torch.tanh(v_i - h @ U)
        out.append(F.silu(2 * q_i @ W) @ U + (q_i @ k_i.mT).tril() @ e)
        back = (e @ U.mT) * (s + h * (1 - s))
        W, U = W + 0.05 * torch.tanh(k_i.mT @ back), 0.98 * U + 0.3 * h.mT @ e
    return torch.cat(out, 2)[:, :, :T].to(dtype)
