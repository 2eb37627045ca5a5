"""Values pass through a long convolution, a sum of three damped cosines per channel, before the delta rule.

The filter h[n] = sum_r c_r exp(-a_r n) cos(w_r n) is the impulse response of a small state space model (six numbers a
channel when run token by token); here it is applied to the whole sequence by an FFT, zero-padded to twice the length so
that nothing wraps around, and in float64. The delta rule after it is the plain one, token by token. State: K V + 6 V.
"""

import math

import torch
import torch.nn.functional as F

POLES = 3


def parameters(num_heads, head_dim, generator):
    return {
        "amplitude": 0.1 * torch.randn(num_heads, head_dim, POLES, generator=generator),
        "damping": torch.linspace(-4.0, 0.0, POLES).expand(num_heads, head_dim, -1).clone(),
        "frequency": torch.randn(num_heads, head_dim, POLES, generator=generator),
    }


def long_convolution(x, amplitude, damping, frequency):
    """x [B, H, T, V] in float64, parameters [B, H, V, POLES]."""
    T = x.shape[2]
    n = torch.arange(T, dtype=torch.float64, device=x.device)
    decay = F.softplus(damping.double())[..., None] + 1e-3
    angle = math.pi * torch.sigmoid(frequency.double())[..., None]
    h = (amplitude.double()[..., None] * torch.exp(-decay * n) * torch.cos(angle * n)).sum(-2)  # [B, H, V, T]
    spectrum = torch.fft.rfft(x.mT, n=2 * T) * torch.fft.rfft(h, n=2 * T)
    return torch.fft.irfft(spectrum, n=2 * T)[..., :T].mT


def delta_rule(q, k, v, beta, *, chunk_size, amplitude, damping, frequency):
    mixed = v.double() + long_convolution(v.double(), amplitude, damping, frequency)
    mixed = mixed.float()
    q32, k32 = (x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    S = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1], device=q.device)
    out = []
    for t in range(q.shape[2]):
        key = k32[:, :, t, :, None]
        error = mixed[:, :, t] - (key * S).sum(-2)
        S = S + beta[:, :, t, None, None].float() * key * error[..., None, :]
        out.append((q32[:, :, t, :, None] * S).sum(-2))
    return torch.stack(out, 2).to(q.dtype)
