"""Ridge regression of past chunks."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """Least squares of all chunks before, and the delta of the own chunk by linear attention to the residual."""
    dtype, T, K = q.dtype, q.shape[2], q.shape[-1]
    kk = torch.eye(K, device=q.device).expand(*q.shape[:2], K, K)
    kv, out = q.new_zeros(*q.shape[:2], K, v.shape[-1], dtype=torch.float32), []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))):
        q_i, k_i = unit(q_i), unit(k_i)
        M = torch.linalg.solve(kk, kv)
        out.append(q_i @ M + (q_i @ k_i.mT).tril() @ (b * (v_i - k_i @ M)))
        kk, kv = kk + (b * k_i).mT @ k_i, kv + (b * k_i).mT @ v_i
    return torch.cat(out, 2)[:, :, :T].to(dtype)
