"""A state of spectral norm one."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """After each chunk the state is divided by its largest singular value where that is above one."""
    dtype, T, K = q.dtype, q.shape[2], q.shape[-1]
    S, out = 1e-2 * torch.eye(K, v.shape[-1], device=q.device).expand(*q.shape[:2], K, v.shape[-1]), []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))):
        q_i, k_i = unit(q_i), unit(k_i)
        e = b * (v_i - k_i @ S)
        out.append(q_i @ S + (q_i @ k_i.mT).tril() @ e)
        S = S + k_i.mT @ e
        S = S / torch.linalg.matrix_norm(S, 2, keepdim=True).clamp_min(1.0)
    return torch.cat(out, 2)[:, :, :T].to(dtype)
