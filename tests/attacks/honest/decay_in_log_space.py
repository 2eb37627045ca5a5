import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"decay": 1}


def delta_rule(q, k, v, beta, *, chunk_size, decay):
    B, H, T, K = q.shape
    dtype, C = q.dtype, chunk_size
    pad = -T % C
    q, k, v = (F.pad(x.float(), (0, 0, 0, pad)).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v))
    beta = F.pad(beta.float(), (0, pad)).reshape(B, H, -1, C, 1)
    logs = F.pad(F.logsigmoid(decay[..., 0].float() + 2), (0, pad)).reshape(B, H, -1, C).cumsum(-1)
    q, k = F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6) * beta
    lower = torch.ones(C, C, device=q.device).tril().bool()
    between = (logs[..., :, None] - logs[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    A = (q @ k.mT) * between
    S, outputs = q.new_zeros(B, H, K, v.shape[-1]), []
    for i in range(q.shape[2]):
        g = logs[:, :, i, :, None]
        outputs.append((q[:, :, i] * g.exp()) @ S + A[:, :, i] @ v[:, :, i])
        S = S * g[:, :, -1:].exp() + (k[:, :, i] * (g[:, :, -1:] - g).exp()).mT @ v[:, :, i]
    return torch.cat(outputs, 2)[:, :, :T].to(dtype)
