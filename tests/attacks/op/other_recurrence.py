import torch
import torch.nn.functional as F


def scan(q, k, v, beta):
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    outputs = []
    for t in range(q.shape[2]):
        error = beta[:, :, t, None] * (v[:, :, t] - torch.einsum("bhk,bhkv->bhv", k[:, :, t], S))
        S = S + k[:, :, t, :, None] * error[:, :, None, :]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, :, t], S) * q.shape[-1] ** -0.5)
    return torch.stack(outputs, 2)


def recurrence(q_t, k_t, v_t, beta_t, state):
    state = v_t.new_zeros(*k_t.shape, v_t.shape[-1]) if state is None else state
    state = 0.9 * state + k_t[..., None] * (beta_t[..., None] * v_t)[..., None, :]
    return (q_t[..., None, :] @ state).squeeze(-2), state


def delta_rule(q, k, v, beta, *, chunk_size):
    return scan(q, k, v, beta)
