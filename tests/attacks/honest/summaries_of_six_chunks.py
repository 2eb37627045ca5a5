"""A two-level memory: exact attention inside the chunk, summaries of the last six finished chunks, both in one softmax.

A summary is a key and a value pooled over the chunk with weights from beta; it comes into being when its chunk is
complete, so the tokens of a chunk never see their own summary. What a seventh chunk pushes out goes to a linear state.
"""
import torch

KEPT = 6


def rms(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def attend(q, groups):
    """One softmax over several groups of (keys, values, additive mask)."""
    logits = torch.cat([q @ keys.mT * q.shape[-1] ** -0.5 + mask for keys, _, mask in groups], dim=-1)
    values = torch.cat([vals for _, vals, _ in groups], dim=2)
    return torch.softmax(logits, -1) @ values


def delta_rule(q, k, v, beta, *, chunk_size):
    out_dtype = q.dtype
    q, k, v, logit = rms(q.float()), rms(k.float()), v.float(), 4 * beta.float().unsqueeze(-1)
    summaries: list[tuple[torch.Tensor, torch.Tensor]] = []
    archived = torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1], device=q.device)
    pieces = []
    for qc, kc, vc, lc in zip(*(x.split(chunk_size, dim=2) for x in (q, k, v, logit))):
        n = qc.shape[2]
        future = torch.full((n, n), float("-inf"), device=q.device).triu(1)
        groups = [(kc, vc, future + lc.mT)]
        groups += [(key, value, 0.0) for key, value in summaries]
        pieces.append(attend(qc, groups) + 0.4 * (qc @ archived))
        weights = lc.softmax(dim=2)
        summaries.append(((weights * kc).sum(2, keepdim=True), (weights * vc).sum(2, keepdim=True)))
        if len(summaries) > KEPT:
            key, value = summaries.pop(0)
            archived = 0.9 * archived + key.mT @ value / key.shape[-1]
    return torch.cat(pieces, 2).to(out_dtype)
