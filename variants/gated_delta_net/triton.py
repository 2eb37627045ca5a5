"""Gated DeltaNet in three Triton kernels: the function of naive.py, forward and backward.

As the kernels of delta_net, with decays. `invert_kernel` has one program per chunk and keeps T_i = (I +
L_i)^-1; the other two have one program per (batch row, head, block of value features), which carries the
state S [K, V] in registers from chunk to chunk. The backward pass walks the chunks from the last, with S
before each chunk saved. A decay multiplies wherever a query or key reads and divides wherever a key writes,
so the gradient of its logarithm is q dq + k dk (reads) - k dk (writes), summed over the features; the state
at the chunk's end adds the rest. Nothing is atomic. The function does not depend on how it is chunked, so
the tiles are 16 to 64 tokens whatever chunk_size is.
"""

import math

import torch
import torch.nn.functional as F
import triton
import triton.language as tl


def projections(num_heads, head_dim):
    return {"a": 1, "output_gate": head_dim}


def parameters(num_heads, head_dim, generator):
    uniform = torch.rand(2, num_heads, generator=generator)
    dt = torch.exp(math.log(1e-3) + uniform[1] * math.log(1e-1 / 1e-3)).clamp(min=1e-4)
    return {"A_log": torch.log(16 * (1 - uniform[0])), "dt_bias": dt + torch.log(-torch.expm1(-dt))}


def log_decay(a, A_log, dt_bias):
    """a [B, H, T, 1], A_log and dt_bias [B, H] -> g <= 0, [B, H, T, 1]."""
    return -A_log.float().exp()[..., None, None] * F.softplus(a.float() + dt_bias.float()[..., None, None])


@triton.jit
def load(pointer, row, rows, col, cols: tl.constexpr):
    """A tile of a [rows, cols] matrix, zeros outside."""
    inside = (row < rows)[:, None] & (col < cols)[None, :]
    return tl.load(pointer + row[:, None] * cols + col[None, :], mask=inside, other=0.0)


@triton.jit
def store(pointer, row, rows, col, cols: tl.constexpr, value):
    inside = (row < rows)[:, None] & (col < cols)[None, :]
    tl.store(pointer + row[:, None] * cols + col[None, :], value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def load_beta(pointer, row, rows):
    """A column of betas, of which none is zero, so that u / beta is the error before it was weighted."""
    return tl.maximum(tl.load(pointer + row, mask=row < rows, other=0.0).to(tl.float32), 1e-20)[:, None]


@triton.jit
def decays(pointer, row, rows, C: tl.constexpr):
    """Start to token [C, 1], token j to token i >= j [C, C], token to end [C, 1], start to end."""
    c = tl.arange(0, C)
    g = tl.load(pointer + row, mask=row < rows, other=0.0).to(tl.float32)
    lower = c[:, None] >= c[None, :]
    total, g = tl.sum(g, axis=0), tl.cumsum(g, axis=0)
    between = tl.where(lower, tl.exp(tl.where(lower, g[:, None] - g[None, :], 0.0)), 0.0)
    return tl.exp(g)[:, None], between, tl.exp(total - g)[:, None], tl.exp(total)


@triton.jit
def operand(x, PRECISION: tl.constexpr):
    """x in the type in which it enters products."""
    return x.to(tl.bfloat16 if PRECISION == "bf16" else tl.float32)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a @ b, accumulated in float32."""
    tf32: tl.constexpr = "tf32" if PRECISION == "bf16" else PRECISION  # says nothing to bf16 operands
    return tl.dot(operand(a, PRECISION), operand(b, PRECISION), input_precision=tf32)


@triton.jit
def l2norm(x, PRECISION: tl.constexpr):
    """Rows of norm one as operands, and the factors that made them so."""
    x = x.to(tl.float32)
    r = tl.rsqrt(tl.sum(x * x, axis=1) + 1e-6)[:, None]
    return operand(x * r, PRECISION), r


@triton.jit
def l2norm_backward(x, r, grad):
    """Gradient of what l2norm made x from."""
    return r * (grad - x * tl.sum(x * grad, axis=1)[:, None])


@triton.jit
def invert_kernel(
    k, beta, g, inverse, T, N, K: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """inverse [B * H, N, C, C] of I + tril(beta (k k^T * between), -1), by blocks of 1, 2, 4 .. C rows."""
    program = tl.program_id(0).to(tl.int64)
    row, col = (program % N) * C + tl.arange(0, C), tl.arange(0, BK)
    k_i, _ = l2norm(load(k + program // N * T * K, row, T, col, K), PRECISION)
    beta_i = load_beta(beta + program // N * T, row, T)
    _, between, _, _ = decays(g + program // N * T, row, T, C)

    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    L = tl.where(i > j, beta_i * between * dot(k_i, tl.trans(k_i), PRECISION), 0.0)
    X = tl.where(i == j, 1.0, 0.0) - tl.where((i ^ j) == 1, L, 0.0)
    for s in tl.static_range(1, LEVELS):
        X -= tl.where(((i ^ j) >> s) == 1, dot(dot(X, L, PRECISION), X, PRECISION), 0.0)
    store(inverse + program * C * C, tl.arange(0, C), C, tl.arange(0, C), C, X)


@triton.jit
def forward_kernel(
    q, k, v, beta, g, inverse, o, states, T, N, scale, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_STATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(0).to(tl.int64)
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    q, k, v, o = q + bh * T * K, k + bh * T * K, v + bh * T * V, o + bh * T * V
    beta, g = beta + bh * T, g + bh * T
    inverse, states = inverse + bh * N * C * C, states + bh * N * K * V

    S = tl.zeros([BK, BV], dtype=tl.float32)  # state
    for i in range(N):
        row = i * C + c
        q_i, _ = l2norm(load(q, row, T, key, K), PRECISION)
        k_i, _ = l2norm(load(k, row, T, key, K), PRECISION)
        v_i, beta_i = load(v, row, T, value, V), load_beta(beta, row, T)
        decay, between, to_end, whole = decays(g, row, T, C)
        T_i = load(inverse + i * C * C, c, C, c, C)
        A_i = between * dot(q_i, tl.trans(k_i), PRECISION)  # intra-chunk weights
        if HAS_STATE:
            store(states + i * K * V, key, K, value, V, S)
            u_i = dot(T_i, beta_i * (v_i - decay * dot(k_i, S, PRECISION)), PRECISION)  # error
            o_i = decay * dot(q_i, S, PRECISION) + dot(A_i, u_i, PRECISION)  # output
            S = S * whole + dot(tl.trans(k_i), to_end * u_i, PRECISION)  # state update
        else:
            u_i = dot(T_i, beta_i * v_i, PRECISION)
            o_i = dot(A_i, u_i, PRECISION)
        store(o, row, T, value, V, o_i * scale)


@triton.jit
def backward_kernel(
    q, k, v, beta, g, inverse, states, do, dq, dk, dv, dbeta, dg, T, N, scale,
    K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HAS_STATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk [V blocks, B, H, T, K], dbeta, dg [V blocks, B, H, T]: each block's share of the gradient."""
    bh = tl.program_id(0).to(tl.int64)
    share = tl.program_id(1) * tl.num_programs(0) + bh
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    q, k, v, do = q + bh * T * K, k + bh * T * K, v + bh * T * V, do + bh * T * V
    beta, g, dbeta, dg = beta + bh * T, g + bh * T, dbeta + share * T, dg + share * T
    inverse, states = inverse + bh * N * C * C, states + bh * N * K * V
    dq, dk, dv = dq + share * T * K, dk + share * T * K, dv + bh * T * V

    dS = tl.zeros([BK, BV], dtype=tl.float32)  # of the state after the chunk
    for n in range(N):
        i = N - 1 - n
        row = i * C + c
        # The error again, as in the forward pass.
        k_i, k_r = l2norm(load(k, row, T, key, K), PRECISION)
        v_i, beta_i = load(v, row, T, value, V), load_beta(beta, row, T)
        decay, between, to_end, whole = decays(g, row, T, C)
        T_i = load(inverse + i * C * C, c, C, c, C)
        if HAS_STATE:
            S = load(states + i * K * V, key, K, value, V)
            v_i -= decay * dot(k_i, S, PRECISION)
        u_i = dot(T_i, beta_i * v_i, PRECISION)

        # Output and state update: o = decay q S + A u, S <- whole S + k^T to_end u.
        q_i, q_r = l2norm(load(q, row, T, key, K), PRECISION)
        do_i = operand(load(do, row, T, value, V) * scale, PRECISION)
        A_i = between * dot(q_i, tl.trans(k_i), PRECISION)
        dA = between * dot(do_i, tl.trans(u_i), PRECISION)
        dq_i = dot(dA, k_i, PRECISION)
        du = dot(tl.trans(A_i), do_i, PRECISION)
        dk_write = dot(tl.trans(dA), q_i, PRECISION)
        dg_end = 0.0
        if HAS_STATE:
            dq_i += decay * dot(do_i, tl.trans(S), PRECISION)
            du += to_end * dot(k_i, dS, PRECISION)
            dk_end = to_end * dot(u_i, tl.trans(dS), PRECISION)
            dk_write += dk_end
            dg_end = whole * tl.sum(S * dS) + tl.sum(k_i * dk_end)
            dS = dS * whole + dot(tl.trans(q_i), decay * do_i, PRECISION)
        dg_i = tl.sum(q_i * dq_i, axis=1)
        store(dq, row, T, key, K, l2norm_backward(q_i, q_r, dq_i))

        # Error: (I + L) u = beta (v - decay k S), L = tril(beta between k k^T, -1).
        du = dot(tl.trans(T_i), du, PRECISION)
        dbeta_i = tl.sum(du * (u_i / beta_i), axis=1)
        dv_i = du * beta_i
        store(dv, row, T, value, V, dv_i)
        dL = -between * dot(dv_i, tl.trans(u_i), PRECISION)
        dL = tl.where(c[:, None] > c[None, :], dL, 0.0)
        dk_read = dot(dL, k_i, PRECISION)
        dk_write += dot(tl.trans(dL), k_i, PRECISION)
        if HAS_STATE:
            dk_read -= decay * dot(dv_i, tl.trans(S), PRECISION)
            dS -= dot(tl.trans(k_i), decay * dv_i, PRECISION)
        store(dk, row, T, key, K, l2norm_backward(k_i, k_r, dk_read + dk_write))
        dg_i += tl.sum(k_i * (dk_read - dk_write), axis=1)
        dg_i = tl.cumsum(dg_i, axis=0, reverse=True) + dg_end
        tl.store(dbeta + row, dbeta_i.to(dbeta.dtype.element_ty), mask=row < T)
        tl.store(dg + row, dg_i, mask=row < T)


def tiles(q, v, chunk_size):
    """Sizes of the kernels' tiles, their precision, and how many warps a program has."""
    K, V = q.shape[-1], v.shape[-1]
    precision = "bf16" if q.dtype == torch.bfloat16 else "tf32x3"
    narrow = 1 if precision == "bf16" else 2  # float32 tiles take twice the shared memory
    BK = max(triton.next_power_of_2(K), 16)
    BV = min(max(triton.next_power_of_2(V), 16), (64 if BK <= 128 else 32) // narrow)
    C = min(max(triton.next_power_of_2(chunk_size), 16), max(8192 // narrow // BK, 16), 64)
    sizes = {"K": K, "C": C, "BK": BK}
    return sizes, {**sizes, "V": V, "BV": BV, "HAS_STATE": q.shape[2] > C, "PRECISION": precision}


def num_warps(tile):
    return 4 if tile["C"] * tile["BK"] <= 4096 else 8


class GatedDeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta, g, chunk_size):
        q, k, v, beta, g = (x.contiguous() for x in (q, k, v, beta, g))
        B, H, T, K = q.shape
        V = v.shape[-1]
        small, tile = tiles(q, v, chunk_size)
        C, N = tile["C"], triton.cdiv(T, tile["C"])
        exact = "tf32" if tile["PRECISION"] == "bf16" else tile["PRECISION"]
        kept = torch.bfloat16 if tile["PRECISION"] == "bf16" else torch.float32
        inverse = torch.empty(B * H, N, C, C, dtype=kept, device=q.device)
        states = torch.empty(B * H, N if tile["HAS_STATE"] else 0, K, V, dtype=kept, device=q.device)
        o = torch.empty(B, H, T, V, dtype=q.dtype, device=q.device)
        invert_kernel[(B * H * N,)](
            k, beta, g, inverse, T, N, **small, LEVELS=C.bit_length() - 1, PRECISION=exact, num_warps=2
        )
        grid = (B * H, triton.cdiv(V, tile["BV"]))
        forward_kernel[grid](
            q, k, v, beta, g, inverse, o, states, T, N, K**-0.5, **tile,
            num_warps=num_warps(tile), num_stages=2,
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, beta, g, inverse, states)
        ctx.tile = tile
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, v, beta, g, inverse, states = ctx.saved_tensors
        B, H, T, K = q.shape
        tile, N = ctx.tile, inverse.shape[1]
        grid = (B * H, triton.cdiv(v.shape[-1], tile["BV"]))
        blocks, whole = grid[1], grid[1] == 1
        dq, dk, dbeta, dg = (
            torch.empty(blocks, *x.shape, dtype=x.dtype if whole else torch.float32, device=x.device)
            for x in (q, k, beta, g)
        )
        dv = torch.empty_like(v)
        backward_kernel[grid](
            q, k, v, beta, g, inverse, states, do.contiguous(), dq, dk, dv, dbeta, dg, T, N, K**-0.5, **tile,
            num_warps=num_warps(tile), num_stages=1,
        )  # fmt: skip
        dq, dk, dbeta, dg = (
            grad[0] if whole else grad.sum(0).to(x.dtype)
            for grad, x in ((dq, q), (dk, k), (dbeta, beta), (dg, g))
        )
        return dq, dk, dv, dbeta, dg, None


def delta_rule(q, k, v, beta, *, chunk_size, a, A_log, dt_bias):
    g = log_decay(a, A_log, dt_bias).squeeze(-1)
    return GatedDeltaRule.apply(q, k, v, beta, g, chunk_size)
