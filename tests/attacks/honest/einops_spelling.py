import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat


def delta_rule(q, k, v, beta, *, chunk_size):
    H = q.shape[1]
    q, k = (F.normalize(x, dim=-1) for x in (q, k))
    q, k, v, beta = (rearrange(x, "b h t ... -> (b h) t ...") for x in (q, k, v, beta))
    S = repeat(torch.zeros((), dtype=v.dtype, device=v.device), "-> n k v", n=q.shape[0], k=q.shape[-1], v=v.shape[-1])
    outputs = []
    for q_t, k_t, v_t, b_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), beta.unbind(1)):
        error = v_t - einsum(S, k_t, "... k v, ... k -> ... v")
        S = S + einsum(k_t, error * b_t[..., None], "... k, ... v -> ... k v")
        outputs.append(torch.einsum("...k,...kv->...v", q_t, S))
    return rearrange(torch.stack(outputs, 1), "(b h) t v -> b h t v", h=H)
