"""DeltaNet in Triton kernels: the function of naive.py, forward and backward.

`invert_kernel` has one program per chunk: T_i = (I + L_i)^-1, kept for the backward pass. `forward_kernel`
and `backward_kernel` have one program per (batch row, head, block of value features), which carries the
state S [K, V] in registers from chunk to chunk: u_i = T_i beta (v_i - k_i S), o_i = q_i S + A_i u_i, S <- S +
k_i^T u_i, where A_i = tril(q_i k_i^T). The forward pass saves u and S before every chunk; the backward pass
walks the chunks from the last.

Sequences of more than WALK tokens have too many chunks to do all that one after the other. There
`walk_kernel` and `walk_back_kernel` carry nothing but S and its gradient, and save them at every chunk; the
kernels above then have a program per chunk. With W_i = T_i beta k_i and Q_i = q_i - A_i W_i, steps of the two
walks are S <- S + k_i^T (T_i beta v_i - W_i S) and dS <- dS + Q_i^T do_i - W_i^T k_i dS.

Rows are normalised where they are loaded. Nothing is atomic: where value features are split, the partial
gradients of q, k and beta are summed afterwards. The function does not depend on how it is chunked, so tiles
have 16 to 64 tokens whatever chunk_size is.
"""

import torch
import triton
import triton.language as tl

WALK = 1024  # by length alone: what a sequence gives may not depend on how many are in its batch


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
    q, k, beta, inverse, Q, W, T, N, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr,
    WALKED: tl.constexpr, EXACT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """inverse [B * H, N, C, C] by diagonal blocks of 1, 2, 4 .. C rows; Q, W [B, H, T, K] for the walks."""
    program = tl.program_id(0).to(tl.int64)
    row, col, head = (program % N) * C + tl.arange(0, C), tl.arange(0, BK), program // N
    k_i, _ = l2norm(load(k + head * T * K, row, T, col, K), EXACT)
    beta_i = load_beta(beta + head * T, row, T)

    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    L = tl.where(i > j, beta_i * dot(k_i, tl.trans(k_i), EXACT), 0.0)
    X = tl.where(i == j, 1.0, 0.0) - tl.where((i ^ j) == 1, L, 0.0)
    for s in tl.static_range(1, LEVELS):
        X -= tl.where(((i ^ j) >> s) == 1, dot(dot(X, L, EXACT), X, EXACT), 0.0)
    store(inverse + program * C * C, tl.arange(0, C), C, tl.arange(0, C), C, X)
    if WALKED:
        W_i = dot(X, beta_i * k_i, PRECISION)
        store(W + head * T * K, row, T, col, K, W_i)
        q_i, _ = l2norm(load(q + head * T * K, row, T, col, K), PRECISION)
        A_i = tl.where(i >= j, dot(q_i, tl.trans(k_i), PRECISION), 0.0)
        store(Q + head * T * K, row, T, col, K, q_i - dot(A_i, W_i, PRECISION))


@triton.jit
def walk_kernel(
    k, v, beta, inverse, W, u, states, T, N, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """u [B, H, T, V], and states [B * H, N, K, V] before every chunk."""
    bh = tl.program_id(0).to(tl.int64)
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    k, W, v, u, beta = k + bh * T * K, W + bh * T * K, v + bh * T * V, u + bh * T * V, beta + bh * T
    inverse, states = inverse + bh * N * C * C, states + bh * N * K * V

    S = tl.zeros([BK, BV], dtype=tl.float32)
    for i in range(N):
        row = i * C + c
        store(states + i * K * V, key, K, value, V, S)
        k_i, _ = l2norm(load(k, row, T, key, K), PRECISION)
        v_i, beta_i = load(v, row, T, value, V), load_beta(beta, row, T)
        T_i, W_i = load(inverse + i * C * C, c, C, c, C), load(W, row, T, key, K)
        u_i = dot(T_i, beta_i * v_i, PRECISION) - dot(W_i, S, PRECISION)
        store(u, row, T, value, V, u_i)
        S += dot(tl.trans(k_i), u_i, PRECISION)


@triton.jit
def walk_back_kernel(
    k, Q, W, do, dstates, T, N, scale, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dstates [B * H, N, K, V]: gradients of the states after every chunk."""
    bh = tl.program_id(0).to(tl.int64)
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    k, do, dstates = k + bh * T * K, do + bh * T * V, dstates + bh * N * K * V
    Q, W = Q + bh * T * K, W + bh * T * K

    dS = tl.zeros([BK, BV], dtype=tl.float32)
    for n in range(N):
        i = N - 1 - n
        row = i * C + c
        store(dstates + i * K * V, key, K, value, V, dS)
        k_i, _ = l2norm(load(k, row, T, key, K), PRECISION)
        do_i, du = load(do, row, T, value, V).to(tl.float32) * scale, -dot(k_i, dS, PRECISION)
        dS += dot(tl.trans(load(Q, row, T, key, K)), do_i, PRECISION)
        dS += dot(tl.trans(load(W, row, T, key, K)), du, PRECISION)


@triton.jit
def forward_kernel(
    q, k, v, beta, inverse, u, o, states, T, N, scale, K: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, HAS_STATE: tl.constexpr, WALKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    bh = program // N if WALKED else program
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    lower = c[:, None] >= c[None, :]
    q, k, v, u, o = q + bh * T * K, k + bh * T * K, v + bh * T * V, u + bh * T * V, o + bh * T * V
    beta, inverse, states = beta + bh * T, inverse + bh * N * C * C, states + bh * N * K * V

    S = tl.zeros([BK, BV], dtype=tl.float32)  # state
    for n in range(1 if WALKED else N):
        i = program % N if WALKED else n
        row = i * C + c
        q_i, _ = l2norm(load(q, row, T, key, K), PRECISION)
        k_i, _ = l2norm(load(k, row, T, key, K), PRECISION)
        A_i = tl.where(lower, dot(q_i, tl.trans(k_i), PRECISION), 0.0)  # intra-chunk weights
        if WALKED:
            o_i = dot(q_i, load(states + i * K * V, key, K, value, V), PRECISION)
            o_i += dot(A_i, load(u, row, T, value, V), PRECISION)
        else:
            v_i, beta_i = load(v, row, T, value, V), load_beta(beta, row, T)
            T_i = load(inverse + i * C * C, c, C, c, C)
            if HAS_STATE:
                store(states + i * K * V, key, K, value, V, S)
                u_i = dot(T_i, beta_i * (v_i - dot(k_i, S, PRECISION)), PRECISION)  # error
                o_i = dot(q_i, S, PRECISION) + dot(A_i, u_i, PRECISION)  # output
                S += dot(tl.trans(k_i), u_i, PRECISION)  # state update
            else:
                u_i = dot(T_i, beta_i * v_i, PRECISION)
                o_i = dot(A_i, u_i, PRECISION)
            store(u, row, T, value, V, u_i)
        store(o, row, T, value, V, o_i * scale)


@triton.jit
def backward_kernel(
    q, k, beta, inverse, u, states, do, dstates, dq, dk, dv, dbeta, T, N, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    HAS_STATE: tl.constexpr, WALKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, dk [V blocks, B, H, T, K], dbeta [V blocks, B, H, T]: each block's share of the gradient."""
    program = tl.program_id(0).to(tl.int64)
    bh, heads = (program // N, tl.num_programs(0) // N) if WALKED else (program, tl.num_programs(0))
    share = tl.program_id(1) * heads + bh
    c, key, value = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    lower, strictly_lower = c[:, None] >= c[None, :], c[:, None] > c[None, :]
    q, k, u, do, beta = q + bh * T * K, k + bh * T * K, u + bh * T * V, do + bh * T * V, beta + bh * T
    inverse, states = inverse + bh * N * C * C, states + bh * N * K * V
    dq, dk, dv, dbeta = dq + share * T * K, dk + share * T * K, dv + bh * T * V, dbeta + share * T

    dS = tl.zeros([BK, BV], dtype=tl.float32)  # of the state after the chunk
    for n in range(1 if WALKED else N):
        i = program % N if WALKED else N - 1 - n
        row = i * C + c
        q_i, q_r = l2norm(load(q, row, T, key, K), PRECISION)
        k_i, k_r = l2norm(load(k, row, T, key, K), PRECISION)
        u_i, beta_i = load(u, row, T, value, V), load_beta(beta, row, T)
        do_i = operand(load(do, row, T, value, V).to(tl.float32) * scale, PRECISION)

        # Output and state update: o = q S + A u, S <- S + k^T u. A gradient is stored before the next is begun.
        dA = operand(tl.where(lower, dot(do_i, tl.trans(u_i), PRECISION), 0.0), PRECISION)
        dq_i = dot(dA, k_i, PRECISION)
        if HAS_STATE:
            S = load(states + i * K * V, key, K, value, V)
            dq_i += dot(do_i, tl.trans(S), PRECISION)
        store(dq, row, T, key, K, l2norm_backward(q_i, q_r, dq_i))
        A_i = tl.where(lower, dot(q_i, tl.trans(k_i), PRECISION), 0.0)
        dk_i = dot(tl.trans(dA), q_i, PRECISION)
        du = dot(tl.trans(A_i), do_i, PRECISION)
        if HAS_STATE:
            after = load(dstates + (bh * N + i) * K * V, key, K, value, V) if WALKED else dS
            du += dot(k_i, after, PRECISION)
            dk_i += dot(u_i, tl.trans(after), PRECISION)
            dS += dot(tl.trans(q_i), do_i, PRECISION)

        # Error: (I + L) u = beta (v - k S), L = tril(beta k k^T, -1).
        du = dot(tl.trans(load(inverse + i * C * C, c, C, c, C)), du, PRECISION)
        dbeta_i = tl.sum(du * (u_i.to(tl.float32) / beta_i), axis=1)
        tl.store(dbeta + row, dbeta_i.to(dbeta.dtype.element_ty), mask=row < T)
        dv_i = du * beta_i
        store(dv, row, T, value, V, dv_i)
        dL = tl.where(strictly_lower, -dot(dv_i, tl.trans(u_i), PRECISION), 0.0)
        dk_i += dot(dL + tl.trans(dL), k_i, PRECISION)
        if HAS_STATE:
            dk_i -= dot(dv_i, tl.trans(S), PRECISION)
            dS -= dot(tl.trans(k_i), dv_i, PRECISION)
        store(dk, row, T, key, K, l2norm_backward(k_i, k_r, dk_i))


def tiles(q, v, one_chunk):
    """Sizes of tiles, none taller than wide (64 rows of 16 crash on Hopper, Triton 3.6), and precision of products."""
    T, K, V = *q.shape[2:], v.shape[-1]
    precision = "bf16" if q.dtype == torch.bfloat16 else "tf32x3"
    narrow = 1 if precision == "bf16" else 2  # float32 tiles take twice the shared memory
    BK, most = max(triton.next_power_of_2(K), 16), 128 if one_chunk else 64
    BV = min(max(triton.next_power_of_2(V), 16), most // narrow, most * 128 // narrow // BK)
    C = max(min(triton.next_power_of_2(min(T, V)), BK, 64 // narrow, 8192 // narrow // BK), 16)
    return {"K": K, "V": V, "C": C, "BK": BK, "BV": BV, "PRECISION": precision}


def num_warps(tile):
    return 4 if tile["WALKED"] or tile["C"] * tile["BK"] <= 4096 else 8


class DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta):
        q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
        (B, H, T, K), V, walked = q.shape, v.shape[-1], q.shape[2] > WALK
        walk, tile = tiles(q, v, False), tiles(q, v, walked)
        C, N, BK, precision = tile["C"], triton.cdiv(T, tile["C"]), tile["BK"], tile["PRECISION"]
        tile |= {"HAS_STATE": T > C, "WALKED": walked}
        kept, exact = (torch.bfloat16, "tf32") if precision == "bf16" else (torch.float32, precision)
        inverse = torch.empty(B * H, N, C, C, dtype=kept, device=q.device)
        states = torch.empty(B * H, N if T > C else 0, K, V, dtype=kept, device=q.device)
        u, o = torch.empty_like(v, dtype=kept), torch.empty_like(v)
        Q, W = torch.empty(2, *q.shape, dtype=kept, device=q.device) if walked else (None, None)
        invert_kernel[(B * H * N,)](
            q, k, beta, inverse, Q, W, T, N, K, C, BK, C.bit_length() - 1, walked, exact, precision,
            num_warps=4 if walked else max(C * BK // 4096, 1),
        )  # fmt: skip
        if walked:
            grid = (B * H, triton.cdiv(V, walk["BV"]))
            walk_kernel[grid](k, v, beta, inverse, W, u, states, T, N, **walk, num_warps=4, num_stages=2)
        grid = (B * H * N if walked else B * H, triton.cdiv(V, tile["BV"]))
        forward_kernel[grid](
            q, k, v, beta, inverse, u, o, states, T, N, K**-0.5, **tile,
            num_warps=num_warps(tile), num_stages=3 if BK <= 64 else 2,
        )  # fmt: skip
        ctx.save_for_backward(q, k, beta, inverse, u, states, Q, W)
        ctx.tile, ctx.walk, ctx.grid = tile, walk, grid
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, beta, inverse, u, states, Q, W = ctx.saved_tensors
        (B, H, T, K), N, do, dstates = q.shape, inverse.shape[1], do.contiguous(), None
        if W is not None:
            dstates, grid = torch.empty_like(states), (B * H, triton.cdiv(u.shape[-1], ctx.walk["BV"]))
            walk_back_kernel[grid](k, Q, W, do, dstates, T, N, K**-0.5, **ctx.walk, num_warps=4, num_stages=2)
        blocks, whole = ctx.grid[1], ctx.grid[1] == 1
        dq, dk, dbeta = (
            torch.empty(blocks, *x.shape, dtype=x.dtype if whole else torch.float32, device=x.device)
            for x in (q, k, beta)
        )
        dv = torch.empty_like(u, dtype=q.dtype)
        backward_kernel[ctx.grid](
            q, k, beta, inverse, u, states, do, dstates, dq, dk, dv, dbeta, T, N, K**-0.5, **ctx.tile,
            num_warps=num_warps(ctx.tile), num_stages=1,
        )  # fmt: skip
        dq, dk, dbeta = (x[0] if whole else x.sum(0).to(q.dtype) for x in (dq, dk, dbeta))
        return dq, dk, dv, dbeta


def delta_rule(q, k, v, beta, *, chunk_size):
    return DeltaRule.apply(q, k, v, beta)
