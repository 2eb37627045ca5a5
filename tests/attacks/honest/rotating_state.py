"""A complex state that rotates."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def projections(num_heads, head_dim):
    return {"turn": 1}


def delta_rule(q, k, v, beta, *, chunk_size, turn):
    """Complex linear attention: keys and queries turn by an angle that tokens choose, and the past decays by beta."""
    dtype, T, K = q.dtype, q.shape[2], q.shape[-1]
    rate = torch.exp(-torch.arange(K, device=q.device) / K * 4)
    angle = (torch.tanh(turn.float()) * 3.14159).cumsum(2) * rate
    q, k = unit(q.float()), unit(k.float())
    q, k = (torch.cat((x * angle.cos(), x * angle.sin()), -1) for x in (q, k))
    decay = (-0.5 * (1 - beta.float())[..., None])
    S, out = q.new_zeros(*q.shape[:2], 2 * K, v.shape[-1]), []
    for q_i, k_i, v_i, d in zip(*(chunks(x, chunk_size) for x in (q, k, v, decay))):
        c = d.cumsum(2)
        D = torch.exp((c - c.mT).tril()).tril()
        out.append(torch.exp(c) * (q_i @ S) + ((q_i @ k_i.mT) * D) @ v_i)
        S = torch.exp(c[:, :, -1:]) * S + (torch.exp(c[:, :, -1:] - c) * k_i).mT @ v_i
    return torch.cat(out, 2)[:, :, :T].to(dtype)
