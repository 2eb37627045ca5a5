"""`python -m agent` is the command `agent`."""

from .cli import main

if __name__ == "__main__":
    main()
