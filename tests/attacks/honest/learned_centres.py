"""Learned centres that keys are assigned to."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def parameters(num_heads, head_dim, generator):
    return {"centres": torch.randn(num_heads, 2 * head_dim, head_dim, generator=generator)}


def delta_rule(q, k, v, beta, *, chunk_size, centres):
    """Keys and queries as a soft choice among 2 K learned centres; each keeps a running mean of values."""
    dtype, T = q.dtype, q.shape[2]
    c = unit(centres.float()).mT
    pq, pk = (torch.softmax(4 * unit(x.float()) @ c, -1) for x in (q, k))
    S, n, out = 0.0, 1e-2, []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (pq, pk, v, beta[..., None]))):
        A = (q_i @ (b * k_i).mT).tril()
        total = A.sum(-1, keepdim=True) + (q_i * n).sum(-1, keepdim=True)
        read = A @ v_i + (q_i @ S if isinstance(S, torch.Tensor) else 0.0)
        out.append(read / (total + 1e-3))
        S, n = S + (b * k_i).mT @ v_i, n + (b * k_i).sum(2, keepdim=True)
    return torch.cat(out, 2)[:, :, :T].to(dtype)
