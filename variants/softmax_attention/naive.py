"""Causal softmax attention.

Every token reads all tokens before it: what the bounded state of the delta rule is a stand-in for. It ignores
chunk_size and beta. Reference row: unbounded state, for which the gates reject it; it is never ranked.

Source: Vaswani et al., Attention Is All You Need, arXiv 1706.03762.
Recurrent form: no, its state grows with every token.
"""

import torch.nn.functional as F


def delta_rule(q, k, v, beta, *, chunk_size):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
