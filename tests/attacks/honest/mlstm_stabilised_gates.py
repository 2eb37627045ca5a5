"""mLSTM: exponential input gate, stabiliser m_t and normaliser n_t.

C_t = f C + i k v^T, n_t = f n + i k, h = C^T q / max(|n^T q|, exp(-m)). The stabiliser is the running maximum of the
input gates' logarithms after forgetting, so that the exponential gate never overflows. beta multiplies the value.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"i_gate": 1, "f_gate": 1}


def delta_rule(q, k, v, beta, *, chunk_size, i_gate, f_gate):
    B, H, T, K = q.shape
    dtype = q.dtype
    q = q.float()
    k = k.float() / K**0.5
    v = v.float() * beta.float()[..., None]
    log_i = i_gate.float().squeeze(-1)
    log_f = F.logsigmoid(f_gate.float().squeeze(-1) + 3.0)

    c = torch.cumsum(log_f, dim=-1)
    # m_t = max_j<=t (c_t - c_j + i_j), as one cumulative maximum
    m = c + torch.cummax(log_i - c, dim=-1).values
    m_prev = torch.cat([m[..., :1], m[..., :-1]], dim=-1)
    i_ = torch.exp(log_i - m)
    f_ = torch.exp(log_f + m_prev - m)

    C = torch.zeros(B, H, K, v.shape[-1], device=q.device)
    n = torch.zeros(B, H, K, device=q.device)
    hs = []
    for t in range(T):
        ft, it = f_[..., t, None], i_[..., t, None]
        C = ft[..., None] * C + (it * k[:, :, t])[..., None] * v[:, :, t, None, :]
        n = ft * n + it * k[:, :, t]
        num = torch.einsum("bhk,bhkv->bhv", q[:, :, t], C)
        den = torch.maximum((q[:, :, t] * n).sum(-1).abs(), torch.exp(-m[..., t].clamp(min=-30.0)))
        hs.append(num / (den[..., None] + 1e-6))
    return torch.stack(hs, dim=2).to(dtype)
