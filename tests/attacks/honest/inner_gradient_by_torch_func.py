"""Test-time training of a linear map under a normalised loss (TTT-Linear).

The inner loss of a token is the distance between v and its prediction, both at unit root mean square: only the direction
of the value is learned, not its length. Gradients are taken at the state with which the chunk begins (mini-batch of a
chunk; depends on chunk_size), by torch.func, with respect to the prediction; the rest is linear attention. The state starts from a
learned matrix.
"""

import torch


def parameters(num_heads, head_dim, generator):
    start = torch.randn(num_heads, head_dim, head_dim, generator=generator) * head_dim**-0.5
    return {"start": start, "pace": torch.zeros(num_heads)}


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def rms(x, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def inner_loss(prediction, value):
    """One token: two vectors of V numbers."""
    difference = rms(prediction, 0.1) - rms(value, 1e-4)
    return 0.5 * (difference * difference).sum()


def delta_rule(q, k, v, beta, *, chunk_size, start, pace):
    dtype, T = q.dtype, q.shape[2]
    q, k, v = l2norm(q.float()), l2norm(k.float()), v.float()
    rate = beta.float()[..., None] * torch.sigmoid(pace.float())[..., None, None] * 4 / chunk_size**0.5
    pull = torch.func.vmap(torch.func.grad(inner_loss))
    S, o = start.float(), []
    for t in range(0, T, chunk_size):
        q_c, k_c, v_c, rate_c = (x[:, :, t : t + chunk_size] for x in (q, k, v, rate))
        prediction = k_c @ S
        slope = pull(prediction.flatten(0, 2), v_c.flatten(0, 2)).view_as(prediction)
        write = -rate_c * slope
        o.append(q_c @ S + (q_c @ k_c.mT).tril() @ write)
        S = S + k_c.mT @ write
        S = S * torch.rsqrt(1 + S.square().mean((-2, -1), keepdim=True) / 16)
    return torch.cat(o, 2).to(dtype)
