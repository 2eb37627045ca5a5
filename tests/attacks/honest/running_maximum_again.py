"""A running maximum."""
import torch


def delta_rule(q, k, v, beta, *, chunk_size):
    """Per channel the largest value so far, fading by half in some thirty tokens, read through the query; beside linear attention to the own chunk."""
    dtype, T = q.dtype, q.shape[2]
    t = 0.02 * torch.arange(T, device=q.device, dtype=torch.float32)[:, None]
    x = beta.float()[..., None] * torch.tanh(v.float() * k.float())
    top = (x + t).cummax(2).values - t
    return (torch.tanh(q.float()) * top + 0.1 * v.float()).to(dtype)
