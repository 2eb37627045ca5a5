"""The untrusted process: raises its walls, loads one variant by file path, answers requests over two pipes.

It never holds a key, a target or a path of the host that matters; whatever it answers is data to the other side.
"""

import gc
import inspect
import json
import os
import re
import sys
from pathlib import Path

from evaluator import confine

if __name__ == "__main__":  # before torch is imported and the first thread starts
    confine.enter(confine.Spec(**json.loads(sys.argv[1])))
    gc.disable()  # a tenth of the time that importing torch takes is spent on looking for garbage in it

from evaluator import wire
from evaluator.answers import HANDLERS
from evaluator.loaded import BadOutput, Loaded, load

MAX_MESSAGE = 300
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # of CUDA and of torch's two allocators
IN_PLACE = re.compile("modified (by an )?inplace|in-place operation")


def serve(request_fd: int, reply_fd: int) -> None:
    """Answer requests until the other side hangs up."""
    operator: Loaded | None = None
    while True:
        try:
            header, tensors = wire.receive(request_fd)
        except wire.WireClosed:
            return
        try:
            if header["request"] == "start":
                pass  # that it answers says that torch is imported
            elif header["request"] == "load":
                sources = {name: bytes(x.numpy()).decode() for name, x in tensors.items()}
                operator = load(sources, header["form"], header["device"], Path(os.environ["HOME"]))
            else:
                assert operator is not None
                part = lambda h, t: wire.send(reply_fd, {**h, "reply": "part"}, t)  # noqa: E731
                HANDLERS[header["request"]](header, tensors, operator, part)
            answer: wire.Header = {"reply": "end"}
        except BaseException as error:  # whatever a variant raises, KeyboardInterrupt and SystemExit too, is an answer
            answer = {"reply": "error", **_failure(error)}
        wire.send(reply_fd, answer)


def _failure(error: BaseException) -> dict[str, str]:
    if isinstance(error, BadOutput):
        return {"kind": "bad-output", "message": str(error)[:MAX_MESSAGE]}
    try:
        text = f"{type(error).__name__}: {error}"[: MAX_MESSAGE + 100]
    except BaseException:  # its __str__ is the variant's code too
        text = "an exception that can't be printed"
    line = _last_line(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in NO_MEMORY):
        kind = "memory"
    else:
        kind = "crashed" if "CUDA error" in text else "raised"
    if IN_PLACE.search(text):  # told by torch of the tensor, not of what was done
        text = f"what backward needs was written to in place, as inputs and declared tensors must never be: {text}"
    return {"kind": kind, "message": (f"line {line}, " if line else "") + text}


def _last_line(error: BaseException) -> str | None:
    """Where in the variant it was raised."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [f for f in frames if str(f.frame.f_globals.get("__name__")).startswith("variant_")]
    return f"{own[-1].lineno} of {Path(own[-1].filename).name}" if own else None


if __name__ == "__main__":
    gc.enable()
    serve(int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # nothing that a variant left to run at exit is run
