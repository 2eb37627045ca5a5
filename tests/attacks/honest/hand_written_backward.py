"""Gated linear attention as an autograd.Function with its backward pass written out.

S_t = gamma_t S_{t-1} + k_t v_t^T, o_t = q_t S_t. The forward pass writes into tensors allocated beforehand; the backward
pass walks the tokens in reverse with the adjoint dS and finds the exact gradients of q, k, v and gamma. Normalisation,
beta and the gate stay outside, with ordinary autograd.
"""

import torch


def projections(num_heads, head_dim):
    return {"decay": 1}


class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, gamma):
        B, H, T, K = q.shape
        states = q.new_zeros(T + 1, B, H, K, v.shape[-1])  # states[t]: before token t
        out = torch.empty_like(v)
        for t in range(T):
            torch.mul(states[t], gamma[:, :, t, None, None], out=states[t + 1])
            states[t + 1].addcmul_(k[:, :, t, :, None], v[:, :, t, None, :])
            out[:, :, t] = (q[:, :, t, :, None] * states[t + 1]).sum(-2)
        ctx.save_for_backward(q, k, v, gamma, states)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, gamma, states = ctx.saved_tensors
        dq, dk, dv, dgamma = (torch.empty_like(x) for x in (q, k, v, gamma))
        dS = torch.zeros_like(states[0])
        for t in reversed(range(q.shape[2])):
            g = grad[:, :, t]
            dS.addcmul_(q[:, :, t, :, None], g[:, :, None, :])
            dq[:, :, t] = (states[t + 1] * g[:, :, None, :]).sum(-1)
            dk[:, :, t] = (dS * v[:, :, t, None, :]).sum(-1)
            dv[:, :, t] = (dS * k[:, :, t, :, None]).sum(-2)
            dgamma[:, :, t] = (dS * states[t]).sum((-1, -2))
            dS.mul_(gamma[:, :, t, None, None])
        return dq, dk, dv, dgamma


def delta_rule(q, k, v, beta, *, chunk_size, decay):
    q32, k32 = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    gamma = torch.sigmoid(decay.float().squeeze(-1) + 3.0)
    v32 = v.float() * (beta.float() * (1.25 - gamma))[..., None]
    return Scan.apply(q32.contiguous(), k32.contiguous(), v32.contiguous(), gamma.contiguous()).to(q.dtype)
