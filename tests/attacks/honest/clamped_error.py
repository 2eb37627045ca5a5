"""An error clamped before it is written."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """The error of a chunk against the state before it is clamped to one."""
    dtype, T, K = q.dtype, q.shape[2], q.shape[-1]
    S, out = q.new_zeros(*q.shape[:2], K, v.shape[-1], dtype=torch.float32), []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))):
        q_i, k_i = unit(q_i), unit(k_i)
        e = b * (v_i - k_i @ S).clamp(-1, 1)
        out.append(q_i @ S + (q_i @ k_i.mT).tril() @ e)
        S = 0.97 * S + k_i.mT @ e / chunk_size**0.5
    return torch.cat(out, 2)[:, :, :T].to(dtype)
