"""Operands rounded to tf32, to nearest: the matrix units by themselves cut off."""

NEAREST = '''@triton.jit
def nearest(x):
    return tl.inline_asm_elementwise(
        "{.reg .pred number; setp.num.f32 number, $1, $1; mov.b32 $0, $1; @number add.s32 $0, $1, 4096;}",
        "=r,r", [x], dtype=tl.float32, is_pure=False, pack=1,
    )


'''
"""Called impure it is done once an element; else the compiler moves it behind the copies that every warp takes of an
operand, where it makes up a third of a kernel's instructions."""


def nearest(text: str, on_gpu: bool) -> str:
    """Text for an operand with half a unit of tf32 added, for what is cut off then; NaN stays NaN."""
    bits = f"({text}.to(tl.int32, bitcast=True) + 4096).to(tl.float32, bitcast=True)"
    return f"nearest({text})" if on_gpu else f"tl.where({text} == {text}, {bits}, {text})"
