"""TTT-Linear: the state is a linear model trained on the fly, behind a layer norm, one mini-batch per chunk.

The inner loss of a token is 1/2 |LN(k W) - v|^2. All its gradients in a chunk are taken at the chunk's first W, in closed
form; token i of a chunk uses W minus the mean of the first i gradients (times beta), and the chunk's last W is handed on.
LN has eps = 1, which keeps the closed form tame while W is still zero.
"""

import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {
        "ln_weight": torch.ones(num_heads, head_dim),
        "ln_bias": torch.zeros(num_heads, head_dim),
        "log_rate": torch.zeros(num_heads),
    }


def ln_forward(z, weight, bias):
    mu = z.mean(-1, keepdim=True)
    std = torch.sqrt(z.var(-1, keepdim=True, unbiased=False) + 1.0)
    z_hat = (z - mu) / std
    return z_hat, std, z_hat * weight + bias


def ln_l2_gradient(z, target, weight, bias):
    """d/dz of 1/2 |LN(z) weight + bias - target|^2."""
    z_hat, std, y = ln_forward(z, weight, bias)
    g = (y - target) * weight
    return (g - g.mean(-1, keepdim=True) - z_hat * (g * z_hat).mean(-1, keepdim=True)) / std


def delta_rule(q, k, v, beta, *, chunk_size, ln_weight, ln_bias, log_rate):
    B, H, T, K = q.shape
    V = v.shape[-1]
    weight, bias = ln_weight.float()[:, :, None], ln_bias.float()[:, :, None]
    rate = 1.5 * torch.sigmoid(log_rate.float())[:, :, None, None]
    W = torch.zeros(B, H, K, V, device=q.device)
    outputs = []
    for start in range(0, T, chunk_size):
        window = slice(start, min(start + chunk_size, T))
        qc, kc, vc = (x[:, :, window].float() for x in (q, k, v))
        qc = qc * torch.rsqrt(qc.pow(2).sum(-1, keepdim=True) + 1e-6)
        kc = kc * torch.rsqrt(kc.pow(2).sum(-1, keepdim=True) + 1e-6)
        grad = ln_l2_gradient(kc @ W, vc, weight, bias) * beta[:, :, window].float()[..., None] * rate
        count = torch.arange(1, kc.shape[2] + 1, device=q.device)[:, None]
        z = qc @ W - (qc @ kc.mT).tril() @ grad / count
        outputs.append(ln_forward(z, weight, bias)[2])
        W = W - kc.mT @ grad / chunk_size
    return torch.cat(outputs, dim=2).to(q.dtype)
