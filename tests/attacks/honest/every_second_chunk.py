"""Wake and sleep: the fast delta state is consolidated into a slow one every second chunk, and half forgotten."""
import torch
import torch.nn.functional as F

PERIOD = 2  # chunks between two consolidations


def parameters(num_heads, head_dim, generator):
    return {"transfer": torch.zeros(num_heads)}


def delta_rule(q, k, v, beta, *, chunk_size, transfer):
    B, H, T, K = q.shape
    V = v.shape[-1]
    share = torch.sigmoid(transfer.float())[:, :, None, None]
    qf = F.normalize(q.float(), dim=-1, eps=1e-6) * K ** -0.5
    kf = F.normalize(k.float(), dim=-1, eps=1e-6)
    pad = (chunk_size - T % chunk_size) % chunk_size
    qf, kf, vf, bf = (F.pad(x, (0, 0, 0, pad)).split(chunk_size, dim=2) for x in (qf, kf, v.float(), beta.float()[..., None]))
    fast = torch.zeros(B, H, K, V, device=q.device)
    slow = torch.zeros_like(fast)
    eye = torch.eye(chunk_size, device=q.device)
    outs = []
    for n, (qc, kc, vc, bc) in enumerate(zip(qf, kf, vf, bf)):
        L = eye + (bc * (kc @ kc.mT)).tril(-1)
        u = torch.linalg.solve_triangular(L, bc * (vc - kc @ (fast + slow)), upper=False, unitriangular=True)
        outs.append(qc @ (fast + slow) + (qc @ kc.mT).tril() @ u)
        fast = fast + kc.mT @ u
        if (n + 1) % PERIOD == 0:
            slow = 0.9 * slow + share * fast
            fast = 0.5 * fast
    return torch.cat(outs, dim=2)[:, :, :T].to(q.dtype)
