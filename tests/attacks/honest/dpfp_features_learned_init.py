"""DPFP feature map with sum normalisation and a learned initial state.

phi(x) = relu([x, -x]) * roll(relu([x, -x]), 1), normalised to sum one as in Schlag et al.; keys of 2 K features are
closer to orthogonal. The state starts at a learned rank-one matrix instead of zero.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {
        "init_key": 0.1 * torch.randn(num_heads, 2 * head_dim, generator=generator),
        "init_value": 0.1 * torch.randn(num_heads, head_dim, generator=generator),
    }


def dpfp(x, nu=1):
    x = torch.cat([F.relu(x), F.relu(-x)], dim=-1)
    x_rolled = torch.cat([x.roll(shifts=j, dims=-1) for j in range(1, nu + 1)], dim=-1)
    x = torch.cat([x] * nu, dim=-1) * x_rolled
    return (x + 1e-6) / (x.sum(dim=-1, keepdim=True) + x.shape[-1] * 1e-6)


def delta_rule(q, k, v, beta, *, chunk_size, init_key, init_value):
    B, H, T, _ = q.shape
    dtype = q.dtype
    q, k = dpfp(q.float()), dpfp(k.float())
    v, beta = v.float(), beta.float()[..., None]
    V = v.shape[-1]
    pad = -T % chunk_size
    q, k, v, beta = (
        F.pad(x, (0, 0, 0, pad)).reshape(B, H, -1, chunk_size, x.shape[-1]).movedim(2, 0) for x in (q, k, v, beta)
    )
    M = torch.eye(chunk_size, device=q.device) + ((beta * k) @ k.mT).tril(-1)
    X = torch.linalg.solve_triangular(M, torch.cat((beta * v, beta * k), dim=-1), upper=False)
    U, W = X[..., :V], X[..., V:]
    S = init_key.float()[..., :, None] * init_value.float()[..., None, :]
    chunks = []
    for n in range(q.shape[0]):
        u = U[n] - W[n] @ S
        chunks.append(q[n] @ S + (q[n] @ k[n].mT).tril() @ u)
        S = S + k[n].mT @ u
    o = torch.stack(chunks).movedim(0, 2).reshape(B, H, -1, V)
    return o[:, :, :T].to(dtype)
