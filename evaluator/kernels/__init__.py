"""Our parts of the layer as fused Triton kernels, each beside its backward.

`layers.py` says the same in plain PyTorch: it is the CPU's path and what these are tested against.
All of them take a leading replica dimension R (weights may be views of a flat buffer,
whole within a replica), accumulate in float32, and are deterministic: sums over
tokens go through partial sums of a fixed order, never through atomic additions.
"""
