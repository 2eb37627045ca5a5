"""sLSTM-like scalar cell with recurrent mixing inside a head.

The hidden state feeds the gates of the next token.
"""
import torch


def parameters(num_heads, head_dim, generator):
    r = torch.randn(num_heads, head_dim, 2 * head_dim, generator=generator) * 0.5 * head_dim ** -0.5
    return {"R": r, "fb": torch.ones(num_heads, head_dim) * 2}


def delta_rule(q, k, v, beta, *, chunk_size, R, fb):
    B, H, T, K = q.shape
    V = v.shape[-1]
    x, i_in, f_in, b = v.float(), k.float(), q.float(), beta.float()
    R, fb = R.float(), fb.float()
    h = x.new_zeros(B, H, V)
    c = torch.zeros_like(h)
    n = torch.ones_like(h)
    seq = []
    for t in range(T):
        rec = torch.einsum("bhi,bhij->bhj", h, R)
        ri, rf = rec.tensor_split(2, dim=-1)
        i = torch.exp(torch.clamp(i_in[:, :, t] + ri, max=4.0)) * b[:, :, t, None]
        f = torch.sigmoid(f_in[:, :, t] + rf + fb)
        c = f * c + i * torch.tanh(x[:, :, t])
        n = f * n + i
        h = torch.sigmoid(f_in[:, :, t]) * c / n
        seq.append(h)
    return torch.stack(seq, 2).to(q.dtype)
