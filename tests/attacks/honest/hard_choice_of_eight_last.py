"""The best of the last eight by a hard choice."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size):
    """The value of the one of the last eight keys that fits best, times how well it fits."""
    dtype, T = q.dtype, q.shape[2]
    q, k, v, b = unit(q.float()), unit(k.float()), v.float(), beta.float()[..., None]
    def last(x):
        return F.pad(x, (0, 0, 7, 0)).unfold(2, 8, 1)
    keys, values = last(k), last(b * v)
    scores = torch.einsum("bhtk,bhtkn->bhtn", q, keys)
    best = scores.argmax(-1, keepdim=True)
    value = values.gather(-1, best[..., None, :].expand(*values.shape[:-1], 1)).squeeze(-1)
    return (value * torch.sigmoid(4 * scores.gather(-1, best)) + 0.1 * v).to(dtype)
