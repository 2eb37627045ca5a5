"""Tanh on the error that is written: three Triton kernels.

The function of naive.py, forward and backward, as the kernels of delta_net: `invert_kernel` has one program
per chunk and keeps T_i = (I + L_i)^-1; the other two have one program per (batch row, head, block of value
features), which carries the state S [K, V] in registers from chunk to chunk: u_i = T_i beta (v_i - k_i S),
o_i = q_i S + tril(q_i k_i^T) u_i, S <- S + k_i^T tanh(u_i). The forward pass saves u, and S before every
chunk; the backward pass walks the chunks from the last. The function depends on how it is chunked, so a tile
of C rows, a power of two, holds exactly chunk_size tokens.
"""

import torch
import triton
import triton.language as tl


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
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def lower(x, C: tl.constexpr):
    """The causal part of x [C, C]."""
    return tl.where(tl.arange(0, C)[:, None] >= tl.arange(0, C)[None, :], x, 0.0)


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
    k, beta, inverse, T, N, K: tl.constexpr,
    CHUNK: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """inverse [B * H, N, C, C] of I + tril(diag(beta) k k^T, -1), by diagonal blocks of 1, 2, 4 .. C rows."""
    program = tl.program_id(0).to(tl.int64)
    start = program % N * CHUNK
    row, rows, col = start + tl.arange(0, C), tl.minimum(T, start + CHUNK), tl.arange(0, BK)
    k_i, _ = l2norm(load(k + program // N * T * K, row, rows, col, K), PRECISION)
    beta_i = load_beta(beta + program // N * T, row, rows)

    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    L = tl.where(i > j, beta_i * dot(k_i, tl.trans(k_i), PRECISION), 0.0)
    X = tl.where(i == j, 1.0, 0.0) - tl.where((i ^ j) == 1, L, 0.0)
    for s in tl.static_range(1, LEVELS):
        X -= tl.where(((i ^ j) >> s) == 1, dot(dot(X, L, PRECISION), X, PRECISION), 0.0)
    store(inverse + program * C * C, tl.arange(0, C), C, tl.arange(0, C), C, X)


@triton.jit
def forward_kernel(
    q, k, v, beta, inverse, u, o, states, T, N, scale, K: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    HAS_STATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(0).to(tl.int64)
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    q, k, v, u, o = q + bh * T * K, k + bh * T * K, v + bh * T * V, u + bh * T * V, o + bh * T * V
    beta, inverse, states = beta + bh * T, inverse + bh * N * C * C, states + bh * N * K * V

    S = tl.zeros([BK, BV], dtype=tl.float32)  # state
    for i in range(N):
        row, rows = i * CHUNK + c, tl.minimum(T, (i + 1) * CHUNK)
        q_i, _ = l2norm(load(q, row, rows, key, K), PRECISION)
        k_i, _ = l2norm(load(k, row, rows, key, K), PRECISION)
        v_i, beta_i = load(v, row, rows, value, V), load_beta(beta, row, rows)
        T_i = load(inverse + i * C * C, c, C, c, C)
        A_i = lower(scale * dot(q_i, tl.trans(k_i), PRECISION), C)  # intra-chunk weights
        if HAS_STATE:
            store(states + i * K * V, key, K, value, V, S)
            u_i = dot(T_i, beta_i * (v_i - dot(k_i, S, PRECISION)), PRECISION)  # error
            o_i = scale * dot(q_i, S, PRECISION) + dot(A_i, u_i, PRECISION)  # output
            S += dot(tl.trans(k_i), tanh(u_i), PRECISION)  # state update
        else:
            u_i = dot(T_i, beta_i * v_i, PRECISION)
            o_i = dot(A_i, u_i, PRECISION)
        store(u, row, rows, value, V, u_i)
        store(o, row, rows, value, V, o_i)


@triton.jit
def backward_kernel(
    q, k, beta, inverse, u, states, do, dq, dk, dv, dbeta, T, N, scale, K: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    HAS_STATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk [V blocks, B, H, T, K], dbeta [V blocks, B, H, T]: each block's share of the gradient."""
    bh = tl.program_id(0).to(tl.int64)
    share = tl.program_id(1) * tl.num_programs(0) + bh
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    strictly_lower = c[:, None] > c[None, :]
    q, k, u, do, beta = q + bh * T * K, k + bh * T * K, u + bh * T * V, do + bh * T * V, beta + bh * T
    inverse, states = inverse + bh * N * C * C, states + bh * N * K * V
    dq, dk, dv, dbeta = dq + share * T * K, dk + share * T * K, dv + bh * T * V, dbeta + share * T

    dS = tl.zeros([BK, BV], dtype=tl.float32)  # of the state after the chunk
    for n in range(N):
        i = N - 1 - n
        row, rows = i * CHUNK + c, tl.minimum(T, (i + 1) * CHUNK)
        q_i, q_r = l2norm(load(q, row, rows, key, K), PRECISION)
        k_i, k_r = l2norm(load(k, row, rows, key, K), PRECISION)
        u_i, beta_i, do_i = load(u, row, rows, value, V), load_beta(beta, row, rows), load(do, row, rows, value, V)

        # Output, state update: o = scale q S + A u, S <- S + k^T tanh(u). A gradient is stored before the next is begun.
        A_i = lower(scale * dot(q_i, tl.trans(k_i), PRECISION), C)
        dA = lower(scale * dot(do_i, tl.trans(u_i), PRECISION), C)  # of the cosines
        dq_i = dot(dA, k_i, PRECISION)
        if HAS_STATE:
            S = load(states + i * K * V, key, K, value, V)
            dq_i += scale * dot(do_i, tl.trans(S), PRECISION)
        store(dq, row, rows, key, K, l2norm_backward(q_i, q_r, dq_i))
        dk_i = dot(tl.trans(dA), q_i, PRECISION)
        du = dot(tl.trans(A_i), do_i, PRECISION)
        if HAS_STATE:
            written = tanh(u_i.to(tl.float32))
            du += dot(k_i, dS, PRECISION) * (1 - written * written)
            dk_i += dot(written, tl.trans(dS), PRECISION)
            dS += scale * dot(tl.trans(q_i), do_i, PRECISION)

        # Error: (I + L) u = beta (v - k S), L = tril(beta k k^T, -1).
        du = dot(tl.trans(load(inverse + i * C * C, c, C, c, C)), du, PRECISION)
        dbeta_i = tl.sum(du * (u_i.to(tl.float32) / beta_i), axis=1)
        tl.store(dbeta + row, dbeta_i.to(dbeta.dtype.element_ty), mask=row < rows)
        dv_i = du * beta_i
        store(dv, row, rows, value, V, dv_i)
        dL = tl.where(strictly_lower, -dot(dv_i, tl.trans(u_i), PRECISION), 0.0)
        dk_i += dot(dL + tl.trans(dL), k_i, PRECISION)
        if HAS_STATE:
            dk_i -= dot(dv_i, tl.trans(S), PRECISION)
            dS -= dot(tl.trans(k_i), dv_i, PRECISION)
        store(dk, row, rows, key, K, l2norm_backward(k_i, k_r, dk_i))


def tiles(q, v, chunk_size):
    """Sizes of the kernels' tiles, their precision, and how many warps a program has."""
    K, V = q.shape[-1], v.shape[-1]
    exact = "tf32x3" if K <= 128 else "ieee"  # which needs less shared memory
    precision = "bf16" if q.dtype == torch.bfloat16 else exact
    narrow = 1 if precision == "bf16" else 2  # float32 tiles take twice the shared memory
    BK = max(triton.next_power_of_2(K), 16)
    BV = min(max(triton.next_power_of_2(V), 16), (64 if BK <= 128 else 32) // narrow)
    C = max(triton.next_power_of_2(chunk_size), 16)
    sizes = {"K": K, "CHUNK": chunk_size, "C": C, "BK": BK}
    return sizes, {**sizes, "V": V, "BV": BV, "HAS_STATE": q.shape[2] > chunk_size, "PRECISION": precision}


def num_warps(tile):
    return 4 if tile["C"] * tile["BK"] <= 4096 else 8


class DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta, chunk_size):
        q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
        B, H, T, K = q.shape
        V = v.shape[-1]
        small, tile = tiles(q, v, chunk_size)
        C, N = tile["C"], triton.cdiv(T, chunk_size)
        exact = "tf32" if tile["PRECISION"] == "bf16" else tile["PRECISION"]
        kept = torch.bfloat16 if tile["PRECISION"] == "bf16" else torch.float32
        inverse = torch.empty(B * H, N, C, C, dtype=kept, device=q.device)
        states = torch.empty(B * H, N if tile["HAS_STATE"] else 0, K, V, dtype=kept, device=q.device)
        u, o = torch.empty_like(v, dtype=kept), torch.empty_like(v)
        invert_kernel[(B * H * N,)](
            k, beta, inverse, T, N, **small, LEVELS=C.bit_length() - 1, PRECISION=exact,
            num_warps=max(C * tile["BK"] // 4096, 1),
        )
        grid = (B * H, triton.cdiv(V, tile["BV"]))
        forward_kernel[grid](
            q, k, v, beta, inverse, u, o, states, T, N, K**-0.5, **tile, num_warps=num_warps(tile), num_stages=2
        )
        ctx.save_for_backward(q, k, beta, inverse, u, states)
        ctx.tile = tile
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, beta, inverse, u, states = ctx.saved_tensors
        B, H, T, K = q.shape
        tile, N = ctx.tile, inverse.shape[1]
        grid = (B * H, triton.cdiv(u.shape[-1], tile["BV"]))
        blocks, whole = grid[1], grid[1] == 1
        dq, dk, dbeta = (
            torch.empty(blocks, *x.shape, dtype=x.dtype if whole else torch.float32, device=x.device)
            for x in (q, k, beta)
        )
        dv = torch.empty_like(u, dtype=q.dtype)
        backward_kernel[grid](
            q, k, beta, inverse, u, states, do.contiguous(), dq, dk, dv, dbeta, T, N, K**-0.5, **tile,
            num_warps=num_warps(tile), num_stages=1,
        )  # fmt: skip
        dq, dk, dbeta = (
            grad[0] if whole else grad.sum(0).to(x.dtype) for grad, x in ((dq, q), (dk, k), (dbeta, beta))
        )
        return dq, dk, dv, dbeta, None


def delta_rule(q, k, v, beta, *, chunk_size):
    return DeltaRule.apply(q, k, v, beta, chunk_size)
