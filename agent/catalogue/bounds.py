"""Mechanisms that bound the error, or what of it is written."""

from .mechanism import Mechanism

_ERROR = "error bounding"

MECHANISMS = (
    Mechanism(
        slug="tanh_write",
        title="The written error bounded by tanh at $value",
        kind=_ERROR,
        code={"write": ["$u = $value * torch.tanh($u / $value)"]},
        values=(1, 0.5, 2),
        unless=r"tanh\(",
        rationale="A smooth bound keeps one surprising token from overwriting what the state holds; the "
        "chunk's own output still sees the raw error.",
        hypothesis="Long sequences with many overwrites keep more; within one chunk nothing changes.",
        reference="Behrouz et al. 2025, It's All Connected (MIRAS), arXiv 2504.13173 (smooth sign of the "
        "error)",
        prediction={"Compress": 0.005, "Fuzzy Recall": -0.02},
    ),
    Mechanism(
        slug="tanh_error",
        title="The error bounded by tanh at $value, in the output too",
        kind=_ERROR,
        code={"error": ["$u = $value * torch.tanh($u / $value)"]},
        values=(1, 0.5),
        unless=r"tanh\(",
        rationale="The bounded error is both what a chunk reads of itself and what it leaves behind, so "
        "that inside and across chunks the same function is learned.",
        hypothesis="Like a bounded write, and the non-linearity also helps within a chunk.",
        reference="Behrouz et al. 2025, It's All Connected (MIRAS), arXiv 2504.13173",
        prediction={"Memorize": 0.02, "Fuzzy Recall": -0.01},
    ),
    Mechanism(
        slug="huber_write",
        title="The written error of one token clipped to length $value (Huber)",
        kind=_ERROR,
        code={
            "write": [
                "$u = $u * ($value * torch.rsqrt(($u * $u).sum(-1, keepdim=True) + 1e-6)).clamp(max=1)",
            ]
        },
        values=(1, 0.5, 2),
        unless=r"\$?u\w* \* \(\S+ \* torch\.rsqrt",
        rationale="The gradient of a Huber loss: errors up to a length count in full, longer ones only by "
        "their direction, so that outliers cannot dominate the memory.",
        hypothesis="Noise is written with bounded strength: noisy recall holds at higher shares of noise.",
        reference="Huber 1964, Robust Estimation of a Location Parameter; Behrouz et al. 2025, arXiv "
        "2504.13173",
        prediction={"Noisy Recall": 0.001, "Fuzzy Recall": -0.01},
    ),
    Mechanism(
        slug="lp_write",
        title="The written error as the gradient of an L$value loss",
        kind=_ERROR,
        code={"write": ["$u = $u * ($u * $u + 1e-3) ** (($value - 2) / 2)"]},
        values=(1.5, 1.25),
        unless=r"\+ 1e-3\) \*\*",
        rationale="Below two, the exponent weighs small errors up and large ones down: between the delta "
        "rule and a sign rule.",
        hypothesis="Small, frequent corrections count more: compression gains, exact overwriting loses.",
        reference="Behrouz et al. 2025, It's All Connected (MIRAS), arXiv 2504.13173 (Lp losses)",
        prediction={"Compress": 0.01, "Fuzzy Recall": -0.02},
    ),
    Mechanism(
        slug="rmsnorm_write",
        title="The written error of each token at RMS $value",
        kind=_ERROR,
        code={"write": ["$u = $value * $u * torch.rsqrt(($u * $u).mean(-1, keepdim=True) + 1e-4)"]},
        values=(1, 0.3),
        unless=r"rmsnorm\(|\.mean\(-1, keepdim=True\) \+ 1e-",
        rationale="Every token writes with the same strength; what is stored well already is written again.",
        hypothesis="Weak traces are reinforced; noise and known tokens cost capacity: recall loses a little.",
        reference="Zhang and Sennrich 2019, Root Mean Square Layer Normalization, arXiv 1910.07467",
        prediction={
            "Compress": -0.02,
            "Fuzzy Recall": -0.05,
            "Noisy Recall": -0.003,
            "Selective Copy": -0.02,
        },
    ),
    Mechanism(
        slug="soft_threshold_write",
        title="The written error soft-thresholded at $value",
        kind=_ERROR,
        code={"write": ["$u = F.softshrink($u, $value)"]},
        values=(0.02, 0.1),
        unless=r"softshrink|topk",
        rationale="Small errors are mostly interference between keys. Shrinking them to zero keeps the "
        "state sparse and leaves large errors nearly as they are.",
        hypothesis="Less drift over many writes: fuzzy recall and long copying gain a little.",
        reference="Donoho 1995, De-noising by Soft-Thresholding",
        prediction={"Fuzzy Recall": 0.01, "Selective Copy": 0.001},
    ),
    Mechanism(
        slug="topk_write",
        title="Only the largest 1 in $value of a token's errors written",
        kind=_ERROR,
        code={
            "write": [
                "$size = $u.detach().abs()",
                "$u = $u * ($size >= $size.topk(max($u.shape[-1] // $value, 1), dim=-1).values[..., -1:])",
            ]
        },
        values=(2, 8),
        unless=r"softshrink|topk",
        rationale="Writing only where the prediction is most wrong spares the other value dimensions.",
        hypothesis="Less interference at the price of incomplete values: fuzzy recall holds, compression "
        "loses.",
        reference="Makhzani and Frey 2013, k-Sparse Autoencoders, arXiv 1312.5663",
        prediction={"Compress": -0.02, "Memorize": 0.0},
    ),
    Mechanism(
        slug="surprise_gate",
        title="Writes weighted by surprise, |u| / (|u| + $value)",
        kind=_ERROR,
        code={
            "write": [
                "$size = ($u * $u).sum(-1, keepdim=True).add(1e-6).sqrt()",
                "$u = $u * $size / ($size + $value)",
            ]
        },
        values=(0.5, 2),
        unless=r"sigmoid\(u_i\.abs|/ \(size",
        rationale="A token whose value is predicted already has nothing to add; one that surprises has.",
        hypothesis="Known and noise tokens write less: noisy recall and copying gain.",
        reference="Behrouz et al. 2024, Titans, arXiv 2501.00663 (surprise)",
        prediction={"Noisy Recall": 0.001, "Fuzzy Recall": 0.01},
    ),
)
