"""TTT-MLP: the state is a small two-layer network, trained by one gradient step a token, in mini-batches of a chunk.

Hidden width K / 4: the state is W1 [K, r] and W2 [r, V], 2 K V / 4 numbers. Dual form within the chunk.
"""
import torch
import torch.nn.functional as F


def _hidden(head_dim):
    return max(2, head_dim // 4)


def parameters(num_heads, head_dim, generator):
    r = _hidden(head_dim)
    return {
        "w1": torch.randn(num_heads, head_dim, r, generator=generator) * 0.5,
        "w2": torch.randn(num_heads, r, head_dim, generator=generator) * (0.5 / r ** 0.5),
        "lr": torch.full((num_heads,), -1.0),
    }


def gelu_grad(x):
    t = torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x))
    return 0.5 * x * ((1 - t * t) * (0.79788456 + 0.1070322243 * x * x)) + 0.5 * (1 + t)


def delta_rule(q, k, v, beta, *, chunk_size, w1, w2, lr):
    B, H, T, K = q.shape
    dtype = q.dtype
    q = F.normalize(q.float(), dim=-1, eps=1e-6) * 2
    k = F.normalize(k.float(), dim=-1, eps=1e-6) * 2
    v = F.normalize(v.float(), dim=-1, eps=1e-6)
    eta = beta.float()[..., None] * torch.sigmoid(lr.float())[:, :, None, None]
    pad = -T % chunk_size
    q, k, v, eta = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, chunk_size)) for x in (q, k, v, eta))
    W1, W2 = w1.float(), w2.float()
    first1, first2 = W1, W2
    out = []
    for n in range(q.shape[2]):
        x, y, z, e = q[:, :, n], k[:, :, n], v[:, :, n], eta[:, :, n] / chunk_size ** 0.5
        # gradients at the chunk's first weights
        h = y @ W1
        a = F.gelu(h, approximate="tanh")
        d2 = torch.tanh(a @ W2 - z)
        d1 = (d2 @ W2.mT) * gelu_grad(h)
        # outputs with every token's own weights
        hq = x @ W1 - (x @ y.mT).tril() @ (e * d1)
        aq = F.gelu(hq, approximate="tanh")
        out.append(aq @ W2 - (aq @ a.mT).tril() @ (e * d2))
        W1 = first1 + 0.95 * (W1 - first1 - y.mT @ (e * d1))
        W2 = first2 + 0.95 * (W2 - first2 - a.mT @ (e * d2))
    return torch.cat(out, 2)[:, :, :T].to(dtype)
