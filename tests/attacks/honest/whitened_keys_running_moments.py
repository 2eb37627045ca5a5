"""Keys and queries are standardised by the running mean and variance of the keys so far.

Both moments are prefix sums over time, in float64, with one imaginary token of mean 0 and variance 1e-2 before the first,
so that the first key is no zero vector. Token t uses the moments of tokens up to t. Then comes a delta rule along the
whitened and normalised key. State: K V, two sums of K and a count.
"""

import torch


def parameters(num_heads, head_dim, generator):
    return {"centre": torch.zeros(num_heads, head_dim), "prior": torch.zeros(num_heads)}


def running_moments(k, weight):
    count = weight + torch.arange(1, k.shape[2] + 1, dtype=k.dtype, device=k.device)[:, None]
    mean = k.cumsum(2) / count
    square = (k.square().cumsum(2) + 1e-2 * weight) / count
    return mean, torch.rsqrt((square - mean.square()).clamp(min=0) + 1e-3 * square + 1e-8)


def delta_rule(q, k, v, beta, *, chunk_size, centre, prior):
    weight = torch.exp(prior.double())[..., None, None]
    mean, inverse_deviation = running_moments(k.double(), weight)
    mean = mean * torch.sigmoid(centre.double() + 1.0)[:, :, None]
    key, query = ((x.double() - mean) * inverse_deviation for x in (k, q))
    key, query = (x / torch.sqrt(x.square().sum(-1, keepdim=True) + 1e-4) for x in (key, query))
    key, query, value, rate = key.float(), query.float(), v.float(), beta.float()
    S = torch.einsum("bhk,bhv->bhkv", key[:, :, 0], value[:, :, 0]) * rate[:, :, 0, None, None]
    out = [torch.einsum("bhk,bhkv->bhv", query[:, :, 0], S)]
    for t in range(1, q.shape[2]):
        miss = value[:, :, t] - torch.einsum("bhk,bhkv->bhv", key[:, :, t], S)
        S = torch.einsum("bhk,bhv->bhkv", key[:, :, t], rate[:, :, t, None] * miss) + S
        out.append(torch.einsum("bhk,bhkv->bhv", query[:, :, t], S))
    return torch.stack(out, dim=2).to(q.dtype)
