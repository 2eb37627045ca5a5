"""Long decay filter over the whole sequence by FFT in float32, zero padded; values filtered, then gated by q k."""
import torch
import torch.nn.functional as F


def parameters(num_heads, head_dim, generator):
    return {"tau": torch.linspace(0, 3, num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, tau):
    T = q.shape[2]
    t = torch.arange(T, device=q.device, dtype=torch.float32)
    h = torch.exp(-torch.exp(-tau.float())[..., None] * t)  # [B, H, T]
    n = 1 << (2 * T - 1).bit_length()
    x = v.float() * beta.float()[..., None] * torch.sigmoid(k.float().mean(-1, keepdim=True))
    y = torch.fft.irfft(torch.fft.rfft(x, n=n, dim=2) * torch.fft.rfft(h, n=n, dim=2)[..., None], n=n, dim=2)[:, :, :T]
    return (y * torch.sigmoid(q.float().mean(-1, keepdim=True))).to(q.dtype)
