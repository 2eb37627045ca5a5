import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    dtype, C = q.dtype, chunk_size
    pad = -T % C
    q, k, v = (F.pad(x.float(), (0, 0, 0, pad)).reshape(B, H, -1, C, x.shape[-1]) for x in (q, k, v))
    beta = F.pad(beta.float(), (0, pad)).reshape(B, H, -1, C, 1)
    q, k = F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6)
    eye = torch.eye(C, device=q.device)
    A = eye + (beta * k @ k.mT).tril(-1)
    U = torch.linalg.solve_triangular(A, torch.cat([beta * v, beta * k], -1), upper=False, unitriangular=True)
    mask = torch.ones(C, C, device=q.device, dtype=torch.bool).tril()
    weights = torch.softmax((q @ k.mT).masked_fill(~mask, float("-inf")), -1)
    S, outputs = q.new_zeros(B, H, K, v.shape[-1]), []
    for i in range(q.shape[2]):
        u = U[:, :, i, :, : v.shape[-1]] - U[:, :, i, :, v.shape[-1] :] @ S
        outputs.append(q[:, :, i] @ S + weights[:, :, i] @ u)
        S = S + k[:, :, i].mT @ u
    return torch.cat(outputs, 2)[:, :, :T].to(dtype)
