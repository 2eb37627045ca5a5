"""Statistics of the past."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """Values scaled by their own mean and deviation so far, then linear attention, divided by the size of its outputs so far."""
    dtype, T, K = q.dtype, q.shape[2], q.shape[-1]
    q, k, v, b = unit(q.float()), unit(k.float()), v.float(), beta.float()[..., None]
    n = torch.arange(1, T + 1, device=q.device, dtype=torch.float32)[:, None]
    mean = v.cumsum(2) / n
    deviation = torch.sqrt((v - mean).square().cumsum(2) / n + 1e-2)
    x = b * (v - mean) / deviation
    S, out = q.new_zeros(*q.shape[:2], K, v.shape[-1]), []
    for q_i, k_i, x_i in zip(*(chunks(y, chunk_size) for y in (q, k, x))):
        out.append(q_i @ S + (q_i @ k_i.mT).tril() @ x_i)
        S = 0.95 * S + k_i.mT @ x_i
    o = torch.cat(out, 2)[:, :, :T]
    return (o * torch.rsqrt(o.square().cumsum(2) / n + 1e-2) + 0.1 * mean).to(dtype)
