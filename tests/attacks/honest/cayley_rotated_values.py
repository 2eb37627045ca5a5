"""The state's values turn by a learned orthogonal matrix every token.

S <- gamma S Q + k (beta v)^T, o = q S, with Q = (I - A)^-1 (I + A), A skew: Cayley's transform. Powers of Q up to
chunk_size are built by doubling. In the frame of the chunk's start a value is written as v Q^-i and an output is read back
by Q^i, so that the chunk is ordinary masked attention. Like a rotary embedding, but of values, and learned.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {
        "skew": 0.2 * torch.randn(num_heads, head_dim, head_dim, generator=generator),
        "log_forget": torch.linspace(-5.0, -2.0, num_heads),
    }


def cayley(skew):
    A = (skew - skew.mT) / 2
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve(eye - A, eye + A)


def powers(Q, count):
    """Q^0 ... Q^count, [B, H, count + 1, V, V]."""
    P = torch.stack((torch.eye(Q.shape[-1], device=Q.device).expand_as(Q), Q), dim=2)
    while P.shape[2] <= count:
        P = torch.cat((P, P[:, :, -1:] @ P[:, :, 1:]), dim=2)
    return P[:, :, : count + 1]


def delta_rule(q, k, v, beta, *, chunk_size, skew, log_forget):
    B, H, T, K = q.shape
    V, C = v.shape[-1], chunk_size
    P = powers(cayley(skew.float()), C)
    rate = -F.softplus(log_forget.float())[..., None, None]
    i = torch.arange(C, device=q.device, dtype=torch.float32)
    mask = torch.exp(rate * (i[:, None] - i).clamp(min=0)).tril()
    S = torch.zeros(B, H, K, V, device=q.device)
    outputs = []
    for begin in range(0, T, C):
        qc, kc, vc = (x[:, :, begin : begin + C].float() for x in (q, k, v))
        n = qc.shape[2]
        qc = qc * torch.rsqrt(qc.square().sum(-1, keepdim=True) + 1e-6)
        kc = kc * torch.rsqrt(kc.square().sum(-1, keepdim=True) + 1e-6)
        vc = beta[:, :, begin : begin + C, None].float() * vc
        vc = torch.einsum("bhiv,bhiwv->bhiw", vc, P[:, :, :n])  # v Q^-i, for Q^-1 is Q transposed
        framed = (qc @ kc.mT * mask[..., :n, :n]) @ vc + torch.exp(rate * (i[:n, None] + 1)) * (qc @ (S @ P[:, :, 1]))
        outputs.append(torch.einsum("bhiv,bhivw->bhiw", framed, P[:, :, :n]))
        written = (kc * torch.exp(rate * (n - 1 - i[:n, None]))).mT @ vc
        S = torch.exp(rate * n) * (S @ P[:, :, n]) + written @ P[:, :, n - 1]
    return torch.cat(outputs, dim=2).to(q.dtype)
