"""Compilation of a naive operator: many small steps on [.., C, K] tiles become a few Triton kernels.

`capture` turns the operator into two ATen graphs, forward and backward, with `decompositions` for what is more than one
step, and `simplify` tidies them. `views` says where an element of a view lies in what it views (`index` does the
arithmetic), `tiles` what one program computes of a node, `repeating` what is not worth keeping, `grouping` which nodes
share a kernel. `emit` writes the kernels, `library` compiles and launches them, `compiled` is the graph at work, `faster`
decides whether it may be used. What they can't say runs as the ATen call that it is, so that every operator works and
most get faster.
"""
