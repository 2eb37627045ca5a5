"""Mechanisms that change what is read: the weights inside a chunk, and what is added to the read-out."""

from .mechanism import Mechanism

_WEIGHTS = "intra-chunk weights"
_READ = "read-out"

_FUTURE = "$future = torch.ones_like($A[0, 0], dtype=torch.bool).triu(1)"

_WEIGHT_MECHANISMS = (
    Mechanism(
        slug="softmax_weights",
        title="Softmax over the tokens of a chunk, sharpness $value",
        kind=_WEIGHTS,
        code={
            "weights": [_FUTURE, "$A = ($A * ($value * K**0.5)).masked_fill($future, -torch.inf).softmax(-1)"]
        },
        values=(1, 8, 4),
        unless=r"softmax\(|sigmoid\(A|A\.sum",
        rationale="Positive weights that sum to one bound the read of the most recent tokens, and keys of "
        "one chunk compete instead of adding up.",
        hypothesis="Within one chunk memory gets close to attention's: memorization gains strongly; recall "
        "across chunks loses a little.",
        reference="Vaswani et al. 2017, arXiv 1706.03762",
        prediction={"Memorize": 0.45, "Context Recall": -0.01, "Noisy Recall": -0.02, "Fuzzy Recall": -0.05},
    ),
    Mechanism(
        slug="learned_softmax_weights",
        title="Softmax over the tokens of a chunk, at a temperature learned per head",
        kind=_WEIGHTS,
        code={
            "chunks": ["$heat = torch.exp($heat.float()).reshape(B * H, 1, 1, 1)"],
            "weights": [_FUTURE, "$A = ($A * ($heat * K**0.5)).masked_fill($future, -torch.inf).softmax(-1)"],
        },
        parameters={"heat": "torch.full((num_heads,), 1.5)"},
        unless=r"softmax\(|sigmoid\(A|A\.sum",
        rationale="Normalised keys and queries give scores within one of zero, too flat for a softmax; a "
        "learned temperature per head lets it be sharp where that helps.",
        hypothesis="Memorization gains as with any softmax, and sharper heads lose less on recall.",
        reference="Henry et al. 2020, Query-Key Normalization for Transformers, arXiv 2010.04245",
        prediction={"Memorize": 0.45, "Fuzzy Recall": -0.03},
    ),
    Mechanism(
        slug="sigmoid_weights",
        title="Sigmoid weights inside a chunk, sharpness $value",
        kind=_WEIGHTS,
        code={"weights": ["$A = torch.sigmoid($A * ($value * K**0.5) - 3.5).tril()"]},
        values=(4, 8),
        unless=r"softmax\(|sigmoid\(A|A\.sum",
        rationale="A sigmoid with a bias near minus the logarithm of the chunk's length weighs each token "
        "by itself: positive like a softmax, without its competition.",
        hypothesis="Most of the gain of a softmax on memorization, less loss where several tokens matter at "
        "once.",
        reference="Ramapuram et al. 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention, "
        "arXiv 2409.04431",
        prediction={"Memorize": 0.3, "Fuzzy Recall": -0.03},
    ),
    Mechanism(
        slug="cubic_weights",
        title="Intra-chunk weights to the third power",
        kind=_WEIGHTS,
        code={"weights": ["$A = $A * ($A * $A) * K"]},
        unless=r"A = A \* \(A \* A\)",
        rationale="A polynomial of the cosine keeps its sign and suppresses weak matches: a kernel of "
        "higher degree, exact within a chunk.",
        hypothesis="Similar but wrong keys leak less into the read: memorization and recall gain.",
        reference="Kacham et al. 2023, PolySketchFormer, arXiv 2310.01655",
        prediction={"Memorize": 0.1, "Compress": 0.01},
    ),
    Mechanism(
        slug="relu2_weights",
        title="Squared ReLU weights inside a chunk, normalised",
        kind=_WEIGHTS,
        code={
            "weights": [
                "$A = F.relu($A * K**0.5) ** 2",
                "$A = $A / ($A.sum(-1, keepdim=True) + 0.1)",
            ]
        },
        unless=r"softmax\(|sigmoid\(A|A\.sum",
        rationale="Squared ReLU is sparse where a softmax is not: tokens that point away get no weight at "
        "all.",
        hypothesis="Memorization gains like with a softmax; exact zeros keep noise tokens out.",
        reference="Hua et al. 2022, Transformer Quality in Linear Time, arXiv 2202.10447; Wortsman et al. "
        "2023, Replacing Softmax with ReLU in Vision Transformers, arXiv 2309.08586",
        prediction={"Memorize": 0.3, "Noisy Recall": -0.005},
    ),
    Mechanism(
        slug="normalised_weights",
        title="Intra-chunk weights divided by their absolute sum",
        kind=_WEIGHTS,
        code={"weights": ["$A = $A / ($A.abs().sum(-1, keepdim=True) + 0.05)"]},
        unless=r"softmax\(|sigmoid\(A|A\.(abs\(\)\.)?sum",
        rationale="The denominator of linear attention, signed: the read does not grow with the tokens in "
        "reach.",
        hypothesis="Early and late tokens of a chunk are read at one scale: compression gains.",
        reference="Katharopoulos et al. 2020, Transformers are RNNs, arXiv 2006.16236",
        prediction={"Compress": 0.01, "Memorize": 0.05},
    ),
    Mechanism(
        slug="distance_decay",
        title="Intra-chunk weights that fade by $value a token",
        kind=_WEIGHTS,
        code={
            "weights": [
                "$place = torch.arange($A.shape[-1], device=$A.device)",
                "$A = $A * $value ** ($place[:, None] - $place).clamp(min=0).float()",
            ]
        },
        values=(0.95, 0.85),
        unless=r"A\.shape\[-1\], device|decay_between",
        rationale="A bias towards the recent, as positions without parameters: nearby tokens are read first.",
        hypothesis="Order within a chunk is easier to tell: compression gains, recall at a distance loses.",
        reference="Press et al. 2021, ALiBi, arXiv 2108.12409; Sun et al. 2023, arXiv 2307.08621",
        prediction={"Compress": 0.02, "Memorize": -0.03},
    ),
    Mechanism(
        slug="learned_distance_decay",
        title="Intra-chunk weights that fade with distance at a rate learned per head",
        kind=_WEIGHTS,
        code={
            "weights": [
                "$place = torch.arange($A.shape[-1], device=$A.device)",
                "$fade = F.softplus($fade.float()).reshape(B * H, 1, 1, 1)",
                "$A = $A * torch.exp(-$fade * ($place[:, None] - $place).clamp(min=0))",
            ]
        },
        parameters={"fade": "torch.full((num_heads,), -3.0)"},
        unless=r"A\.shape\[-1\], device|decay_between",
        rationale="Slopes of their own let one head look near and another far.",
        hypothesis="Compression gains from positions, and no head is forced to forget.",
        reference="Press et al. 2021, ALiBi, arXiv 2108.12409 (slopes per head, here learned)",
        prediction={"Compress": 0.02},
    ),
)

_READ_MECHANISMS = (
    Mechanism(
        slug="value_skip",
        title="The token's own value added to its output, scaled per head",
        kind=_READ,
        code={
            "setup": ["$skip = $skip.float().reshape(B * H, 1, 1)"],
            "output": ["$o = $o + $skip * $v_i"],
        },
        parameters={"skip": "torch.full((num_heads,), 0.5)"},
        chunked=("v",),
        unless=r"skip",
        rationale="The current token need not pass through the memory to reach its own output; the memory "
        "is then free to answer with what is not in the token.",
        hypothesis="Compression gains, since the last vector must hold the tokens themselves.",
        reference="Gu and Dao 2023, Mamba, arXiv 2312.00752 (the D skip of state space models)",
        prediction={"Compress": 0.01, "Memorize": 0.01},
    ),
    Mechanism(
        slug="current_token_bonus",
        title="A weight of its own, learned per head, for the current token",
        kind=_READ,
        code={
            "chunks": ["$bonus = $bonus.float().reshape(B * H, 1, 1, 1)"],
            "weights": ["$A = $A.tril(-1) + $bonus * $A.triu()"],
        },
        parameters={"bonus": "torch.full((num_heads,), 2.0)"},
        unless=r"bonus|tril\(-1\) \+",
        rationale="What a token reads of itself and what it reads of the past are two things; one number a "
        "head sets them apart, towards reading before writing or after it.",
        hypothesis="Recall tasks can turn the self-read off, compression can turn it up.",
        reference="Peng et al. 2023, RWKV, arXiv 2305.13048 (the bonus u of the current token)",
        prediction={"Compress": 0.01, "Fuzzy Recall": 0.01},
    ),
    Mechanism(
        slug="read_before_write",
        title="Half of the token's own write left out of what it reads",
        kind=_READ,
        code={"weights": ["$A = $A.tril(-1) + $value * $A.triu()"]},
        values=(0.5, 0.25),
        unless=r"bonus|tril\(-1\) \+",
        rationale="A query at a key token is answered by what is stored under that key, not by what it is "
        "about to write there.",
        hypothesis="Recall is cleaner at the position that asks; compression of the last token loses.",
        reference="Schlag et al. 2021, arXiv 2102.11174 (order of reading and writing in fast weights)",
        prediction={"Fuzzy Recall": 0.01, "Compress": -0.01},
    ),
    Mechanism(
        slug="local_attention_branch",
        title="Softmax attention over the chunk added to the read-out, sharpness $value",
        kind=_READ,
        code={
            "weights": [
                _FUTURE,
                "$near = (q @ k.mT * ($value * K**0.5)).masked_fill($future, -torch.inf).softmax(-1) @ v",
            ],
            "setup": ["$mix = $mix.float().reshape(B * H, 1, 1)"],
            "output": ["$o = $o + $mix * $near_i"],
        },
        values=(8, 2),
        parameters={"mix": "torch.full((num_heads,), 0.5)"},
        chunked=("near",),
        unless=r"near_i|softmax\(-1\) @ v",
        rationale="A fixed state for the distance and exact attention for what is near: the two have been "
        "shown to be good at different things.",
        hypothesis="Memorization gains as with softmax weights, while the state's part stays as it was.",
        reference="Arora et al. 2024, Simple Linear Attention Language Models (Based), arXiv 2402.18668",
        prediction={"Memorize": 0.4, "Compress": 0.01},
    ),
)

MECHANISMS = _WEIGHT_MECHANISMS + _READ_MECHANISMS
