"""Two states of different decay that share one error.

What is predicted is the sum of a fast and a slow state; the same error is written into both. The fast state tracks the
recent, the slow one keeps what recurs. Decays are learned, one pair a head.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def invert_unit_lower(L):
    """(I + L)^-1, L [..., C, C] strictly lower triangular: inverts diagonal blocks of 1, 2, 4 .. C rows."""
    C, shape = L.shape[-1], L.shape
    row = torch.arange(C, device=L.device)
    apart = row[:, None] ^ row  # apart >> s == 1: in one block of 2^(s+1) rows, in different halves of it
    L = L.reshape(-1, C, C)
    X = torch.eye(C, device=L.device) - L.detach() * (apart == 1)
    for s in range(1, (C - 1).bit_length()):
        X = torch.where(apart >> s == 1, -(X @ L.detach() @ X), X)
    # A last Newton step, X <- 2 X - X (I + L) X: it sharpens X and carries the gradient, in two products.
    return torch.baddbmm(X, X, torch.baddbmm(X, L, X), beta=2, alpha=-1).reshape(shape)


def parameters(num_heads, head_dim, generator):
    return {"decay": torch.tensor([2.0, 7.0]).repeat(num_heads, 1), "share": torch.zeros(num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, decay, share):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    g = F.logsigmoid(decay.float()).reshape(B * H, 2, 1, 1, 1).unbind(1)
    s = torch.sigmoid(share.float()).reshape(B * H, 1, 1, 1)
    shares = (s, 1 - s)
    q, k, v, beta = (to_chunks(x, chunk_size) for x in (q, k, v, beta[..., None]))
    q = l2norm(q) * K**-0.5
    k = l2norm(k)
    i = torch.arange(chunk_size, device=q.device, dtype=torch.float32)[:, None]
    D = sum(p * ((i - i.mT).clamp(min=0) * h).exp() for p, h in zip(shares, g))
    T_inv = invert_unit_lower((k * beta @ k.mT * D).tril(-1))
    A = (q @ k.mT * D).tril()
    states = [v.new_zeros(B * H, K, V) for _ in g]
    outputs = []
    for n in range(q.shape[1]):
        seen = [((i + 1) * h[:, 0]).exp() for h in g]
        u = T_inv[:, n] @ (beta[:, n] * (v[:, n] - sum(d * (k[:, n] @ S) for d, S in zip(seen, states))))
        outputs.append(sum(d * (q[:, n] @ S) for d, S in zip(seen, states)) + A[:, n] @ u)
        states = [
            S * (chunk_size * h[:, 0]).exp() + p[:, 0] * (k[:, n] * ((chunk_size - 1 - i) * h[:, 0]).exp()).mT @ u
            for S, h, p in zip(states, g, shares)
        ]
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
