"""Lion as the state update: the sign of the interpolated momentum, softened as m / (|m| + eps)."""
import torch
import torch.nn.functional as F

B1, B2, LR, WD, EPS = 0.9, 0.95, 0.05, 0.02, 1e-8


def delta_rule(q, k, v, beta, *, chunk_size):
    batch, heads, length, dim = q.shape
    cast = q.dtype
    q, k, v = q.float(), k.float(), v.float()
    q = F.normalize(q, dim=-1) / dim ** 0.5
    k = F.normalize(k, dim=-1)
    beta = beta.float()[..., None]
    state = q.new_zeros(batch, heads, dim, v.shape[-1])
    moment = torch.zeros_like(state)
    outputs = []
    for start in range(0, length, chunk_size):
        stop = min(start + chunk_size, length)
        qi, ki, vi, bi = (x[:, :, start:stop] for x in (q, k, v, beta))
        err = bi * (vi - ki @ state)
        outputs.append(qi @ state + torch.tril(qi @ ki.transpose(-2, -1)) @ err)
        grad = ki.transpose(-2, -1) @ err
        c = B1 * moment + (1 - B1) * grad
        state = (1 - WD) * state + LR * c / (c.abs() + EPS)
        moment = B2 * moment + (1 - B2) * grad
    return torch.cat(outputs, dim=2).to(cast)
