"""xLSTM's matrix memory: an exponential input gate with a running stabiliser.

S <- f S + exp(i) k v^T, n <- f n + exp(i) k, o = q S / max(|q n|, exp(-m)), everything kept relative to the largest
log weight m so far. The exponential gate can overwrite what was stored, which a sigmoid cannot.
"""

import torch
import torch.nn.functional as F

def to_chunks(x, chunk_size):
    """[B, H, T, D] -> float32 [B * H, N, C, D], zeros after the last token."""
    B, H, T, D = x.shape
    return F.pad(x.float(), (0, 0, 0, -T % chunk_size)).reshape(B * H, -1, chunk_size, D)


def projections(num_heads, head_dim):
    return {"gate": 2}


def parameters(num_heads, head_dim, generator):
    return {"bias": torch.tensor([3.0, -2.0]).repeat(num_heads, 1)}


def delta_rule(q, k, v, beta, *, chunk_size, gate, bias):
    B, H, T, K = q.shape
    V, dtype = v.shape[-1], q.dtype
    f, i = (gate.float() + bias.float()[:, :, None]).split(1, dim=-1)
    f = F.logsigmoid(f)
    i = i + torch.log(beta.float()[..., None] + 1e-6)
    i = F.pad(i, (0, 0, 0, -T % chunk_size), value=-1e4)  # padding is never written
    q, k, v, f = (to_chunks(x, chunk_size) for x in (q, k, v, f))
    i = i.reshape(B * H, -1, chunk_size, 1)
    q = q * K**-0.5
    G = f.cumsum(-2)
    seen = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=q.device).tril()
    weight = (G - G.mT + i.mT).masked_fill(~seen, -1e9)  # log weight of j at i

    S, n = v.new_zeros(B * H, K, V), v.new_zeros(B * H, K, 1)
    m = v.new_full((B * H, 1, 1), -1e3)
    outputs = []
    for q_c, k_c, v_c, G_c, i_c, w_c in zip(*(x.unbind(1) for x in (q, k, v, G, i, weight)), strict=True):
        top = torch.maximum(w_c.amax(-1, keepdim=True), G_c + m).detach()
        A = (w_c - top).exp() * (q_c @ k_c.mT)
        old = (G_c + m - top).exp()
        total = A.sum(-1, keepdim=True) + old * (q_c @ n)
        outputs.append((A @ v_c + old * (q_c @ S)) / torch.maximum(total.abs(), (-top).clamp(max=20).exp() + 1e-6))
        last = G_c[:, -1:]
        m_new = torch.maximum(last + m, (last - G_c + i_c).amax(-2, keepdim=True)).detach()
        k_c = k_c * (last - G_c + i_c - m_new).exp()
        keep = (last + m - m_new).exp()
        S, n, m = keep * S + k_c.mT @ v_c, keep * n + k_c.sum(-2)[..., None], m_new
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T].to(dtype)
