"""What a variant's source may name: modules, builtins, parts of torch and Triton, and what it may not."""

MODULES = {
    "torch", "torch.nn", "torch.nn.functional", "torch.linalg", "torch.special", "torch.fft", "torch.autograd",
    "torch.autograd.function", "torch.func", "math", "einops", "triton", "triton.language", "triton.language.extra",
    "triton.language.extra.libdevice", "triton.language.math", "typing", "collections.abc", "functools", "itertools", "__future__",
}  # fmt: skip
BUILTINS = {
    "abs", "all", "any", "bool", "complex", "dict", "divmod", "enumerate", "filter", "float", "frozenset", "int",
    "isinstance", "iter", "len", "list", "map", "max", "min", "next", "object", "pow", "range", "reversed", "round",
    "set", "slice", "sorted", "staticmethod", "str", "sum", "tuple", "zip", "input", "hex", "bin", "callable",
    "ArithmeticError", "AssertionError", "Exception", "IndexError", "KeyError", "NotImplementedError", "RuntimeError",
    "TypeError", "ValueError", "ZeroDivisionError", "NotImplemented", "Ellipsis",
}  # fmt: skip
TORCH_CLASSES = {"Tensor", "Size", "dtype", "device", "finfo", "iinfo", "no_grad", "enable_grad", "autocast", "Function"}
DENIED = {
    # the graph behind a tensor leads to the model's tokens; whether there is one tells a check from training
    "grad_fn", "next_functions", "register_hook", "retain_grad", "requires_grad", "is_leaf", "grad", "backward",
    "register_prehook", "register_post_accumulate_grad_hook", "is_grad_enabled", "is_inference", "is_inference_mode_enabled", "metadata",
    "set_grad_enabled", "inference_mode", "retains_grad",
    # frames and code objects lead to whoever called
    "f_locals", "f_globals", "f_back", "f_code", "f_builtins", "gi_frame", "gi_code", "cr_frame", "ag_frame", "tb_frame",
    "tb_next", "with_traceback", "mro",
    # memory behind the tensor's back
    "data", "data_ptr", "storage", "untyped_storage", "set_", "resize_", "resize_as_", "share_memory_", "numpy",
    "as_subclass", "empty_strided", "new_empty_strided", "from_file", "frombuffer", "from_dlpack",
    "from_numpy", "as_tensor_subclass", "to_dlpack",
    # what only the trainer's tensors may have tells a check from training
    "storage_offset", "output_nr", "is_set_to", "is_shared", "is_pinned", "get_device",
    # random numbers: only in parameters(), from the generator it is given
    "manual_seed", "initial_seed", "seed", "Generator", "default_generator", "get_rng_state", "set_rng_state", "dropout",
    "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_",
    "alpha_dropout_", "feature_dropout_", "feature_alpha_dropout_", "native_dropout", "bernoulli", "bernoulli_",
    "multinomial", "poisson", "normal_", "uniform_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_",
    "gumbel_softmax", "rrelu", "rrelu_", "binomial", "fractional_max_pool2d", "fractional_max_pool3d",
    # process-wide settings, files, other threads and devices
    "load", "save", "compile", "record_stream", "pin_memory", "cuda", "use_deterministic_algorithms", "import_ir_module",
    "init_num_threads", "wait", "fork", "new", "const_data_ptr", "module_load", "from_buffer",
}  # fmt: skip
OF_NAMED_TUPLES = {"_make", "_replace", "_asdict", "_fields"}
"""Public, underscore or not."""
PURE = {
    "float", "int", "complex", "frozenset", "tuple", "torch.finfo", "torch.iinfo", "torch.device",
    "triton.language.constexpr", "triton.next_power_of_2", "triton.cdiv", "typing.NamedTuple", "typing.NewType",
    "typing.TypeVar",
}  # fmt: skip
"""What may be called at module level."""
READERS = {"len", "enumerate", "zip", "sum", "sorted", "reversed", "list", "tuple", "dict", "torch.tensor"}
"""What takes a table and neither changes it nor hands it on."""
DRAWS = {"rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "randperm", "normal"}
DRAWS_IN_PLACE = {"normal_", "uniform_"}
"""Of tensors, where parameters() draws."""
TORCH_PREFIXES = (
    "set_", "get_", "rand", "cudnn", "miopen", "mkldnn", "is_autocast", "is_anomaly", "is_deterministic", "is_warn", "are_",
    "clear_", "autocast_", "quantize", "quantized", "fbgemm", "parse_", "prepare_", "profiler", "thread_safe", "import_",
    "compiled_with", "sym_", "get_file", "merge_type", "classproperty", "handle_torch", "has_torch", "boolean_dispatch",
)  # fmt: skip
OTHERS = {
    "triton": {"jit", "autotune", "heuristics", "Config", "cdiv", "next_power_of_2"},
    "einops": {"rearrange", "reduce", "repeat", "einsum", "pack", "unpack"},
    "torch.autograd.function": {"once_differentiable", "Function"},
    "torch.func": {"grad", "grad_and_value", "vjp", "jvp", "vmap", "jacrev", "jacfwd", "hessian"},
    "functools": {"partial", "reduce"},  # none that remembers
    "itertools": {"accumulate", "chain", "combinations", "islice", "pairwise", "product", "repeat", "starmap", "zip_longest"},
    "__future__": {"annotations"},
}
"""Modules of which only these names may be used."""
NOT_IN_KERNELS = {"core", "semantic", "inline_asm_elementwise", "extern_elementwise", "standard", "target_info", "extra"}
