"""The chunkwise delta rule with its large products in bfloat16.

Only the triangular inverse and the state's sum are float32; every product with the state takes bfloat16 operands, as a
kernel on tensor cores would. With float32 inputs too the result has the precision of bfloat16.
"""

import torch
import torch.nn.functional as F


def mm(a, b):
    return torch.matmul(a.bfloat16(), b.bfloat16()).float()


def delta_rule(q, k, v, beta, *, chunk_size):
    B, H, T, K = q.shape
    V = v.shape[-1]
    q_, k_, v_, b_ = (F.pad(x.float(), (0, 0, 0, -T % chunk_size)).view(B * H, -1, chunk_size, x.shape[-1]) for x in
                      (q, k, v, beta[..., None]))
    q_ = q_ * (q_.square().sum(-1, keepdim=True) + 1e-6).rsqrt() * K**-0.5
    k_ = k_ * (k_.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
    eye = torch.eye(chunk_size, device=q.device)
    lower = eye + (b_ * (k_ @ k_.mT)).tril(-1)
    inverse = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False, unitriangular=True)
    U, W, A = mm(inverse, b_ * v_), mm(inverse, b_ * k_), mm(q_, k_.mT).tril()
    S = torch.zeros(B * H, K, V, device=q.device)
    out = []
    for n in range(q_.shape[1]):
        u = U[:, n] - mm(W[:, n], S)
        out.append(mm(q_[:, n], S) + mm(A[:, n], u))
        S = S + mm(k_[:, n].mT, u)
    return torch.cat(out, 1).view(B, H, -1, V)[:, :, :T].to(q.dtype)
