"""The twelve tokens of largest beta."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """Attention to the own chunk and to the twelve tokens of chunks before with the largest beta, weighed by it."""
    dtype, T, out = q.dtype, q.shape[2], []
    kept_k, kept_v, kept_b = k.float()[:, :, :0], v.float()[:, :, :0], beta.float()[:, :, :0, None]
    i = torch.arange(chunk_size, device=q.device)
    for n, (q_i, k_i, v_i, b) in enumerate(zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None])))):
        keys, values, weights = torch.cat((kept_k, k_i), 2), torch.cat((kept_v, v_i), 2), torch.cat((kept_b, b), 2)
        m = kept_k.shape[2]
        seen = torch.cat((torch.ones(chunk_size, m, dtype=torch.bool, device=q.device), i[:, None] >= i), 1)
        scores = 4 * unit(q_i) @ unit(keys).mT + torch.log(weights.mT + 1e-2)
        out.append(torch.softmax(scores.masked_fill(~seen, -1e9), -1) @ values)
        at = weights.squeeze(-1).topk(min(12, weights.shape[2]), 2).indices[..., None]
        kept_k, kept_v, kept_b = (x.gather(2, at.expand(*at.shape[:3], x.shape[-1])) for x in (keys, values, weights))
    return torch.cat(out, 2)[:, :, :T].to(dtype)
