"""The entry point: `agent`, which is `python -m agent`. It imports the rest when Ctrl-C can end that, too."""

import sys


def main() -> None:
    """The command line."""
    try:
        from . import stopping

        stopping.at_once()
    except KeyboardInterrupt:
        sys.exit(130)
    from .cli import main as command
    from .ending import ended_by

    try:
        command()
    except SystemExit as end:
        if end.code == stopping.STATUS:
            stopping.leave()
        raise
    except OSError as error:  # of a help that can't be printed: nothing was begun
        sys.exit(ended_by(error))


if __name__ == "__main__":
    main()
