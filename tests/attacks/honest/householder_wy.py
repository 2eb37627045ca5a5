"""Negative eigenvalues: beta in (0, 2), chunks by the WY form and torch.linalg.inv of a unit triangle."""
import torch
import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    C, dtype = chunk_size, q.dtype
    split = lambda x: F.pad(x.float(), (0, 0, 0, -T % C)).reshape(B, H, -1, C, x.size(-1))
    q, k, v, b = map(split, (q, k, v, 2 * beta.unsqueeze(-1)))
    norm = lambda x: x * (x.pow(2).sum(-1, True) + 1e-6).rsqrt()
    q, k = norm(q), norm(k)
    M = torch.eye(C, device=q.device) + torch.tril(b * k @ k.mT, -1)
    Tm = torch.linalg.inv(M)
    U, W = Tm @ (b * v), Tm @ (b * k)
    S, ys = q.new_zeros(B, H, K, v.size(-1)), []
    for n in range(q.size(2)):
        d = U[:, :, n] - W[:, :, n] @ S
        ys += [q[:, :, n] @ S + torch.tril(q[:, :, n] @ k[:, :, n].mT) @ d]
        S = S + k[:, :, n].mT @ d
    return torch.cat(ys, dim=2)[:, :, :T].to(dtype)
