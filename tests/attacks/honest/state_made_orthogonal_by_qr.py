"""A state made orthogonal by QR."""
import torch
import torch.nn.functional as F


def unit(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def chunks(x, C):
    """[B, H, T, D] -> list of float32 [B, H, C, D], zeros after the last token."""
    x = F.pad(x.float(), (0, 0, 0, -x.shape[2] % C))
    return x.reshape(*x.shape[:2], -1, C, x.shape[-1]).unbind(2)


def delta_rule(q, k, v, beta, *, chunk_size):
    """After each chunk the state moves half way to the orthogonal factor of its QR decomposition."""
    dtype, T, K, V = q.dtype, q.shape[2], q.shape[-1], v.shape[-1]
    S, out = torch.eye(K, V, device=q.device).expand(*q.shape[:2], K, V), []
    for q_i, k_i, v_i, b in zip(*(chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))):
        q_i, k_i = unit(q_i), unit(k_i)
        e = b * torch.tanh(v_i - k_i @ S)
        out.append(q_i @ S + (q_i @ k_i.mT).tril() @ e)
        S = S + k_i.mT @ e
        Q, R = torch.linalg.qr(S + 2 * torch.eye(K, V, device=q.device))
        S = 0.5 * S + 0.5 * Q * torch.diagonal(R, dim1=-2, dim2=-1).sign()[..., None, :]
    return torch.cat(out, 2)[:, :, :T].to(dtype)
