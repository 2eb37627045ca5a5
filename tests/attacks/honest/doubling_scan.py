import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    dtype, C = q.dtype, chunk_size
    q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
    v, g = v.float() * beta.float()[..., None], 1 - 0.1 * beta.float()[..., None, None]
    S, outputs = None, []
    for start in range(0, T, C):
        part = slice(start, min(start + C, T))
        b = k[:, :, part, :, None] * v[:, :, part, None, :]
        a = g[:, :, part].expand(-1, -1, -1, 1, 1)
        step = 1
        while step < b.shape[2]:
            b = torch.cat([b[:, :, :step], b[:, :, step:] + a[:, :, step:] * b[:, :, :-step]], 2)
            a = torch.cat([a[:, :, :step], a[:, :, step:] * a[:, :, :-step]], 2)
            step *= 2
        b = b if S is None else b + a * S[:, :, None]
        S = b[:, :, -1]
        outputs.append((q[:, :, part, None, :] @ b).squeeze(3))
    return torch.cat(outputs, 2).to(dtype)
