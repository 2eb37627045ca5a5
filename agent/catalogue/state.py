"""Mechanisms that change how the state goes from chunk to chunk."""

from .mechanism import Mechanism

_STATE = "state transition"

MECHANISMS = (
    Mechanism(
        slug="fixed_decay",
        title="The state decays by $value a chunk",
        kind=_STATE,
        code={"update": ["$S = $value * $S"]},
        values=(0.95, 0.8, 0.99),
        unless=r"\bdecay|LAMBDA|S = 0\.\d+ \* S",
        rationale="A fixed horizon bounds the state and frees room that old associations hold.",
        hypothesis="What is older than some chunks fades: copying over long distances loses, noise matters "
        "less.",
        reference="Sun et al. 2023, Retentive Network, arXiv 2307.08621",
        prediction={"Selective Copy": -0.01, "Fuzzy Recall": -0.01},
    ),
    Mechanism(
        slug="learned_decay",
        title="The state decays a chunk at a rate learned per head",
        kind=_STATE,
        code={
            "setup": ["$keep = torch.sigmoid($keep.float()).reshape(B * H, 1, 1)"],
            "update": ["$S = $S * $keep"],
        },
        parameters={"keep": "torch.full((num_heads,), 3.0)"},
        unless=r"\bdecay|LAMBDA|S \* keep",
        rationale="Heads of several time scales share the work: one remembers, another follows.",
        hypothesis="No loss where the head can learn to keep everything, a gain where it should forget.",
        reference="Orvieto et al. 2023, Resurrecting Recurrent Neural Networks, arXiv 2303.06349; Ma et al."
        " 2022, Mega, arXiv 2209.10655",
        prediction={"Fuzzy Recall": 0.01, "Selective Copy": -0.002},
    ),
    Mechanism(
        slug="projected_decay",
        title="The state decays a chunk by what the chunk's tokens ask for",
        kind=_STATE,
        code={
            "chunks": [
                "$rate = F.softplus(to_chunks($fade, chunk_size) - 3)  # [B * H, N, C, 1]",
                "$keep = torch.exp(-$rate.mean(-2, keepdim=True))",
            ],
            "update": ["$S = $S * $keep_i"],
        },
        projections={"fade": "1"},
        chunked=("keep",),
        unless=r"\bdecay|LAMBDA|S \* keep",
        rationale="Only the input can tell when old content is no longer needed; forgetting by the input is"
        " what separates gated recurrences from fixed ones.",
        hypothesis="The model forgets at boundaries and keeps otherwise: fuzzy recall gains as with a gated "
        "state.",
        reference="Dao and Gu 2024, Mamba-2, arXiv 2405.21060; Yang et al. 2024, Gated Delta Networks, "
        "arXiv 2412.06464",
        prediction={"Fuzzy Recall": 0.05, "Selective Copy": 0.002},
    ),
    Mechanism(
        slug="coupled_forgetting",
        title="The state forgets as much as the chunk writes: decay 1 - $value mean(beta)",
        kind=_STATE,
        code={
            "chunks": ["$keep = 1 - $value * beta.mean(-2, keepdim=True)"],
            "update": ["$S = $S * $keep_i"],
        },
        values=(0.1, 0.3),
        chunked=("keep",),
        unless=r"\bdecay|LAMBDA|S \* keep",
        rationale="Coupling the forget gate to the input gate needs no parameter: a chunk that writes much "
        "makes room for it.",
        hypothesis="The state stays bounded under many writes; distant pairs are lost where everything is "
        "written.",
        reference="Greff et al. 2015, LSTM: A Search Space Odyssey, arXiv 1503.04069 (coupled gates)",
        prediction={"Selective Copy": -0.005, "Fuzzy Recall": 0.01},
    ),
    Mechanism(
        slug="row_norm_cap",
        title="Rows of the state of norm at most $value",
        kind=_STATE,
        code={
            "update": [
                "$size = ($S * $S).sum(-1, keepdim=True)",
                "$S = $S * ($value * torch.rsqrt($size + 1e-6)).clamp(max=1)",
            ]
        },
        values=(1, 0.5, 2),
        unless=r"S = S \* \(S \* S\)\.sum|S = S \* \(\S+ \* torch\.rsqrt",
        rationale="A bound on each key direction keeps the state's reads in the range that the output's "
        "norm expects, however many writes there were.",
        hypothesis="Longer sequences stay stable; short ones do not reach the bound.",
        reference="Hinton et al. 2012, arXiv 1207.0580 (max-norm constraints)",
        prediction={"Compress": 0.003, "Selective Copy": -0.003},
    ),
    Mechanism(
        slug="update_momentum",
        title="Momentum $value on the state's update",
        kind=_STATE,
        code={
            "setup": ["$M = torch.zeros_like($S)"],
            "before_update": ["$before = $S"],
            "update": ["$M = $value * $M + ($S - $before)", "$S = $before + $M"],
        },
        values=(0.5, 0.8),
        unless=r"\bM\b",
        rationale="The update is a gradient step on the recall loss; momentum carries its direction into "
        "the chunks that follow, so that a surprise keeps being written for a while.",
        hypothesis="Averages get smoother; exact recall pays for the delayed writes.",
        reference="Polyak 1964, Some Methods of Speeding up the Convergence of Iteration Methods; Behrouz "
        "et al. 2024, Titans, arXiv 2501.00663",
        prediction={"Fuzzy Recall": -0.05, "Selective Copy": -0.02, "Noisy Recall": -0.002},
    ),
    Mechanism(
        slug="slow_state",
        title="A slow average of the state beside it, read with weight $value",
        kind=_STATE,
        code={
            "setup": ["$slow = torch.zeros_like($S)"],
            "output": ["$o = $o + $value * ($q_i @ $slow)"],
            "update": ["$slow = torch.lerp($slow, $S, 0.2)"],
        },
        values=(0.5, 1),
        unless=r"\bslow\b",
        rationale="Two time scales: the fast state follows, the slow one remembers what has been "
        "overwritten.",
        hypothesis="Old pairs that were displaced can still be read; two answers to one key blur each other.",
        reference="Ba et al. 2016, Using Fast Weights to Attend to the Recent Past, arXiv 1610.06258",
        prediction={"Fuzzy Recall": 0.01, "Selective Copy": 0.001},
    ),
    Mechanism(
        slug="clipped_update",
        title="A chunk's update of the state clipped to norm $value",
        kind=_STATE,
        code={
            "before_update": ["$before = $S"],
            "update": [
                "$step = $S - $before",
                "$size = ($step * $step).sum((-2, -1), keepdim=True)",
                "$S = $before + $step * ($value * torch.rsqrt($size + 1e-6)).clamp(max=1)",
            ],
        },
        values=(2, 1, 4),
        unless=r"step = S - before",
        rationale="Clipping the norm of a gradient step is the plainest defence against one bad batch; here"
        " the batch is a chunk.",
        hypothesis="Chunks full of noise can no longer wash out the state.",
        reference="Pascanu et al. 2012, On the Difficulty of Training Recurrent Neural Networks, arXiv "
        "1211.5063",
        prediction={"Noisy Recall": 0.001, "Fuzzy Recall": -0.01},
    ),
)  # fmt: skip
