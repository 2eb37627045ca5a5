"""RWKV-7: a generalised delta rule with a vector decay and a vector of removal strengths.

S <- S (diag(w) - kappa (a * kappa)^T) + v k^T, o = S q + (q . (bonus * k)) v, one token at a time. w comes from a
projection, a is beta times a learned vector per head. The removal vector is constant, so that in the norm it weighs the
transition never grows. `delta_rule` is a loop over `recurrence`.
"""

import torch

FASTEST = 0.606531  # exp(-1/2): no channel loses more than 45 % a token


def projections(num_heads, head_dim):
    return {"w": head_dim}


def parameters(num_heads, head_dim, generator):
    return {
        "decay_bias": torch.linspace(-5.0, 0.0, head_dim).repeat(num_heads, 1),
        "removal": torch.ones(num_heads, head_dim),
        "bonus": 0.1 * torch.randn(num_heads, head_dim, generator=generator),
    }


def unit(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def recurrence(q_t, k_t, v_t, beta_t, state, w, decay_bias, removal, bonus):
    q, k, v, beta = unit(q_t.float()), unit(k_t.float()), v_t.float(), beta_t.float()[..., None]
    if state is None:
        state = q.new_zeros(*v.shape, q.shape[-1])
    decay = torch.exp(-FASTEST * torch.sigmoid(w.float() + decay_bias.float()))
    a = beta * torch.sigmoid(removal.float())
    predicted = state @ k[..., None]
    state = state * decay[..., None, :] - predicted * (a * k)[..., None, :] + v[..., None] * (beta * k)[..., None, :]
    own = (q * bonus.float() * k).sum(-1, keepdim=True)
    return ((state @ q[..., None]).squeeze(-1) + own * v).to(q_t.dtype), state


def delta_rule(q, k, v, beta, *, chunk_size, w, decay_bias, removal, bonus):
    state, outputs = None, []
    for q_t, k_t, v_t, beta_t, w_t in zip(*(x.unbind(2) for x in (q, k, v, beta, w)), strict=True):
        o_t, state = recurrence(q_t, k_t, v_t, beta_t, state, w_t, decay_bias, removal, bonus)
        outputs.append(o_t)
    return torch.stack(outputs, 2)
