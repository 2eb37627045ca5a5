"""Mechanisms that change what comes in: the map of keys and queries, and the strength of the write."""

from .mechanism import Mechanism

_MAP = "key/query map"
_STRENGTH = "write strength"

_ROTARY = '''\
def rotary_part(x, dims):
    """Rotates the first `dims` features of x [B, H, T, D] by the token's position; float32."""
    half = dims // 2
    rate = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rate
    a, b, rest = x.float().split((half, half, x.shape[-1] - 2 * half), dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), dim=-1)
'''

MECHANISMS = (
    Mechanism(
        slug="token_shift_keys",
        title="Keys mixed with the previous token's key, share $value",
        kind=_MAP,
        code={"inputs": ["k = torch.lerp(k.float(), F.pad(k.float(), (0, 0, 1, -1)), $value)"]},
        values=(0.5, 0.25, 0.75),
        unless=r"\bk = torch\.lerp\(k",
        rationale="A key that holds part of the previous token's key ties a value to the token before it, "
        "which is the pairing that recall needs: the value token is written under its own key's "
        "address.",
        hypothesis="Recall tasks are learned in fewer steps; noisy recall may lose, as noise pairs bind as "
        "well.",
        reference="Peng et al. 2023, RWKV, arXiv 2305.13048 (token shift); Fu et al. 2022, H3, arXiv "
        "2212.14052",
        prediction={"Context Recall": 0.0, "Fuzzy Recall": 0.02, "Compress": -0.01},
    ),
    Mechanism(
        slug="token_shift_values",
        title="Values mixed with the previous token's value, share $value",
        kind=_MAP,
        code={"inputs": ["v = torch.lerp(v.float(), F.pad(v.float(), (0, 0, 1, -1)), $value)"]},
        values=(0.25, 0.5),
        unless=r"\bv = torch\.lerp\(v",
        rationale="A written value that carries a trace of the token before it lets one read return two "
        "tokens.",
        hypothesis="Motifs of several tokens are kept whole more often, single tokens a little less cleanly.",
        reference="Peng et al. 2023, RWKV, arXiv 2305.13048 (token shift on values)",
        prediction={"Fuzzy Recall": 0.01, "Compress": -0.01, "Selective Copy": -0.005},
    ),
    Mechanism(
        slug="elu_features",
        title="Positive features elu(x) + 1 for keys and queries",
        kind=_MAP,
        code={"chunks": ["q, k = F.elu(q) + 1, F.elu(k) + 1"]},
        unless=r"F\.elu\(",
        rationale="Positive features make every similarity positive, so that a read is a weighted sum "
        "without cancellation, as in kernelised attention.",
        hypothesis="Keys crowd into one orthant and interfere more: recall over many pairs should suffer.",
        reference="Katharopoulos et al. 2020, Transformers are RNNs, arXiv 2006.16236",
        prediction={"Fuzzy Recall": -0.03, "Memorize": -0.05, "Compress": -0.02},
    ),
    Mechanism(
        slug="focused_features",
        title="Focused features relu(x)^$value for keys and queries",
        kind=_MAP,
        code={
            "keys": [
                "q = l2norm(F.relu(q * K**0.5) ** $value) * K**-0.5",
                "k = l2norm(F.relu(k) ** $value)",
            ]
        },
        values=(2, 3),
        unless=r"F\.relu\(k\)",
        rationale="A power of the rectified features pulls similar directions together and pushes others "
        "apart: keys come closer to one-hot, which the delta rule stores without interference.",
        hypothesis="More pairs fit into a state of the same size: fuzzy recall and memorization gain.",
        reference="Han et al. 2023, FLatten Transformer, arXiv 2308.00442",
        prediction={"Fuzzy Recall": 0.02, "Memorize": 0.03, "Compress": -0.01},
    ),
    Mechanism(
        slug="softmax_features",
        title="Keys and queries as a softmax over features, sharpness $value",
        kind=_MAP,
        code={"chunks": ["q, k = ($value * q).softmax(-1), ($value * k).softmax(-1)"]},
        values=(4, 1, 8),
        unless=r"k\)\.softmax",
        rationale="A softmax over features gives keys that compete for slots: the state becomes a table "
        "that is addressed softly.",
        hypothesis="Exact recall keeps up where tokens find slots of their own, compression loses.",
        reference="Shen et al. 2018, Efficient Attention, arXiv 1812.01243",
        prediction={"Compress": -0.03, "Fuzzy Recall": -0.01, "Memorize": -0.03},
    ),
    Mechanism(
        slug="l1_keys",
        title="Keys and queries of L1 norm one",
        kind=_MAP,
        code={
            "keys": [
                "q = q * K**0.5 / (q * K**0.5).abs().sum(-1, keepdim=True).clamp(min=1e-3)",
                "k = k / k.abs().sum(-1, keepdim=True).clamp(min=1e-3)",
            ]
        },
        unless=r"k\.abs\(\)\.sum",
        rationale="With the L1 norm the step along a key depends on how sparse the key is: sharp keys write"
        " with full strength, diffuse ones barely.",
        hypothesis="Writes become selective by themselves; with dense keys learning is slower.",
        reference="Schlag et al. 2021, Linear Transformers Are Secretly Fast Weight Programmers, arXiv "
        "2102.11174",
        prediction={"Compress": -0.02, "Fuzzy Recall": -0.03, "Noisy Recall": -0.01},
    ),
    Mechanism(
        slug="centred_keys",
        title="Keys with their mean over features taken away",
        kind=_MAP,
        code={"chunks": ["k = k - k.mean(-1, keepdim=True)"]},
        unless=r"layer_?norm|k - k\.mean",
        rationale="After SiLU all keys share a positive mean, a direction in which they all overlap. "
        "Without it they are closer to orthogonal and overwrite each other less.",
        hypothesis="Less interference: recall and memorization hold or gain, at no cost.",
        reference="Ba et al. 2016, Layer Normalization, arXiv 1607.06450 (its centring alone); Henry et al."
        " 2020, Query-Key Normalization, arXiv 2010.04245",
        prediction={"Fuzzy Recall": 0.01, "Memorize": 0.01},
    ),
    Mechanism(
        slug="partial_rotary",
        title="Rotary positions on one part in $value of the key and query features",
        kind=_MAP,
        code={"inputs": ["q, k = rotary_part(q, 2 * max(K // (2 * $value), 1)), "
                         "rotary_part(k, 2 * max(K // (2 * $value), 1))"]},
        values=(4, 2, 8),
        unless=r"rotary",
        helper=_ROTARY,
        rationale="Rotating all features makes content unreadable at a distance; rotating a few adds "
        "relative positions and leaves the rest to content.",
        hypothesis="Order-sensitive tasks gain a little, recall at long distance loses a little.",
        reference="Su et al. 2021, RoFormer, arXiv 2104.09864",
        prediction={"Compress": 0.01, "Selective Copy": -0.01, "Fuzzy Recall": -0.02},
    ),
    Mechanism(
        slug="negative_eigenvalues",
        title="Write strength up to $value, so that a transition may flip a direction",
        kind=_STRENGTH,
        code={"inputs": ["beta = $value * beta.float()"]},
        values=(2, 1.5),
        unless=r"beta = (2|1\.5) \* beta",
        rationale="With beta above one the transition I - beta k k^T has a negative eigenvalue, without "
        "which a linear recurrence cannot even keep a parity.",
        hypothesis="State tracking that MAD hardly asks for gets possible; recall is unchanged within noise.",
        reference="Grazzi et al. 2024, Unlocking State-Tracking in Linear RNNs Through Negative "
        "Eigenvalues, arXiv 2411.12537",
        prediction={"Compress": 0.01, "Selective Copy": 0.002},
    ),
    Mechanism(
        slug="write_floor",
        title="Write strength of at least $value",
        kind=_STRENGTH,
        code={"inputs": ["beta = $value + (1 - $value) * beta.float()"]},
        values=(0.1, 0.3),
        unless=r"beta = \S+ \+ \(1 -",
        rationale="A lower bound on a gate keeps gradients alive for tokens that the model has learned to "
        "skip.",
        hypothesis="Early training is faster; noise tokens can no longer be ignored altogether.",
        reference="Qin et al. 2023, Hierarchically Gated Recurrent Neural Network, arXiv 2311.04823 (lower "
        "bounds)",
        prediction={"Compress": 0.005, "Noisy Recall": -0.005, "Selective Copy": -0.01},
    ),
    Mechanism(
        slug="learned_write_exponent",
        title="Write strength raised to a power learned per head",
        kind=_STRENGTH,
        code={"inputs": ["beta = beta.float().clamp(min=1e-6) ** torch.exp($sharpness.float())[..., None]"]},
        parameters={"sharpness": "torch.full((num_heads,), 0.5)"},
        unless=r"beta\.float\(\)\.clamp\(min=1e-6\) \*\*",
        rationale="A temperature of its own lets one head write everything and another only what it is sure"
        " of.",
        hypothesis="Heads specialise in selecting: selective copying and noisy recall gain.",
        reference="Henry et al. 2020, Query-Key Normalization, arXiv 2010.04245 (a learned temperature per "
        "head)",
        prediction={"Selective Copy": 0.003, "Fuzzy Recall": 0.01},
    ),
    Mechanism(
        slug="implicit_step",
        title="Write strength of the implicit step, beta / (1 + beta |k|^2)",
        kind=_STRENGTH,
        code={"keys": ["beta = beta / (1 + beta * (k * k).sum(-1, keepdim=True))"]},
        unless=r"beta / \(1 \+ beta",
        rationale="Solving for the new state instead of stepping along the old gradient gives a step that "
        "cannot overshoot, whatever the length of the key.",
        hypothesis="Gentler writes: averages improve, sharp overwriting of one key is slower.",
        reference="Liu et al. 2024, Longhorn, arXiv 2407.14207",
        prediction={"Compress": 0.005, "Fuzzy Recall": -0.02, "Context Recall": -0.002},
    ),
    Mechanism(
        slug="value_gate",
        title="Values scaled by a gate that each token sets, apart from how much it erases",
        kind=_STRENGTH,
        code={"inputs": ["v = 2 * torch.sigmoid($value_gate.float()) * v.float()"]},
        projections={"value_gate": "1"},
        unless=r"value_gate",
        rationale="In the delta rule one number decides how much is erased and how much is written. A gate "
        "on the value alone parts the two.",
        hypothesis="A token can clear a key without writing, or write strongly: copying and recall gain.",
        reference="Peng et al. 2025, RWKV-7, arXiv 2503.14456 (removal and replacement apart); Dauphin et "
        "al. 2016, arXiv 1612.08083 (gated linear units)",
        prediction={"Fuzzy Recall": 0.02, "Selective Copy": 0.003, "Memorize": 0.01},
    ),
)  # fmt: skip
