"""What the compiler says in more instructions than it needs, as PTX: the same bits, on a GPU alone.

Exponentials and single conversions share one narrow unit of a processor, which is what the kernels around a
nonlinearity wait for.
"""

import triton
import triton.language as tl


@triton.jit
def rounded(x, dtype: tl.constexpr, PTX: tl.constexpr):
    """float32 x rounded to `dtype` and wide again; PTX: to bfloat16, two at a time, which does without that unit."""
    if PTX:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 both;
            cvt.rn.bf16x2.f32 both, $3, $2;
            shl.b32 $0, both, 16;
            and.b32 $1, both, 0xffff0000;
            }""",
            "=r,=r,r,r", [x], dtype=tl.float32, is_pure=True, pack=2,
        )  # fmt: skip
    return x.to(dtype).to(tl.float32)


@triton.jit
def sigmoid(x, PTX: tl.constexpr):
    """Of float32 x; PTX: without the cases in which the exponential or the quotient are denormal, the same from -87 on."""
    if PTX:
        return tl.inline_asm_elementwise(
            """{
            .reg .f32 t;
            mul.f32 t, $1, 0fBFB8AA3B;
            ex2.approx.ftz.f32 t, t;
            add.f32 t, t, 0f3F800000;
            rcp.approx.ftz.f32 $0, t;
            }""",
            "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    return tl.sigmoid(x)
