"""Compilation of a naive operator: many small steps on [.., C, K] tiles become a few Triton kernels.

`capture` turns the operator into two ATen graphs, forward and backward; `views` says where an element of a view
lies in what it views; `grouping` decides which nodes share a kernel; `emit` writes the kernels; `compiled` runs
them. What they can't say runs as the ATen call that it is, so that every operator works and most get faster.
"""
