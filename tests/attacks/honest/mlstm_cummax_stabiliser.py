"""mLSTM: exponential input gates, held in range by a running maximum in log space.

C <- f C + exp(i) k v^T, n <- f n + exp(i), o = q C / (n + 1): the normaliser counts the gates alone, since q n of the
original may vanish. Both are stored over exp(m), where m is the running maximum of the log weights: within a chunk a
cummax, between chunks one number a head. Chunkwise and exact, so that the result does not depend on chunk_size.
"""

import torch
import torch.nn.functional as F


def projections(num_heads, head_dim):
    return {"i_gate": 1, "f_gate": 1}


def parameters(num_heads, head_dim, generator):
    return {"f_bias": torch.linspace(3.0, 6.0, num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, i_gate, f_gate, f_bias):
    B, H, T, K = q.shape
    V, C = v.shape[-1], chunk_size

    def cut(x):
        return F.pad(x.float(), (0, 0, 0, -T % C)).reshape(B, H, -1, C, x.shape[-1]).unbind(2)

    q_hat, k_hat = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    log_f = F.logsigmoid(f_gate.float() + f_bias.float()[..., None, None])
    cell, n, m = torch.zeros(B, H, K, V, device=q.device), q_hat.new_zeros(B, H, 1, 1), q_hat.new_zeros(B, H, 1, 1)
    causal = torch.ones(C, C, device=q.device, dtype=torch.bool).tril()
    outputs = []
    streams = (q_hat, k_hat, v.float() * beta.float()[..., None], i_gate, log_f)
    for qc, kc, vc, ic, fc in zip(*map(cut, streams)):
        decay = fc.cumsum(-2)  # [B, H, C, 1]
        source = ic - decay  # log weight of a token, seen from the chunk's start
        peak = torch.maximum(source.cummax(-2).values, m)
        top = decay + peak  # the stabiliser at each token
        between = torch.where(causal, source.mT - peak, float("-inf")).exp()
        old = (m - peak).exp()
        numerator = (qc @ kc.mT * between) @ vc + old * (qc @ cell)
        denominator = between.sum(-1, keepdim=True) + old * n
        floor = torch.exp((-top).clamp(max=30.0))
        outputs.append(numerator / (denominator + floor))
        to_end, kept = (source - peak[..., -1:, :]).exp(), old[..., -1:, :]
        cell = kept * cell + kc.mT @ (to_end * vc)
        n = kept * n + to_end.sum(-2, keepdim=True)
        m = top[..., -1:, :]
    return torch.cat(outputs, 2)[:, :, :T].to(q.dtype)
