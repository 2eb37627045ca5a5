"""What ends a command: each error is one sentence for the person at the keyboard and an exit status."""


class AgentError(Exception):
    """A sentence to print; `exit_status` is what the command then returns."""

    exit_status = 3


class BadInput(AgentError):
    """What was asked for cannot be done as asked: no such ID, no such variant, a wrong setting."""

    exit_status = 2


class EnvironmentFault(AgentError):
    """The machine or a service is not as needed: a second run, no GPU, a full disk, a server that is down."""

    exit_status = 3


class Rejected(AgentError):
    """What was asked for was done, and the answer is no."""

    exit_status = 1
