"""The command `jaxml`, also run by `python -m jaxml`."""

import os
import signal
import sys
from typing import Any, NoReturn


def main() -> int:
    """Runs the command line and returns its exit status, 130 after an interrupt."""
    signal.signal(signal.SIGINT, _exit_interrupted)
    try:
        return _run_cli()
    except KeyboardInterrupt:
        _exit_interrupted()


def _run_cli() -> int:
    try:
        from jaxml import cli
    except ModuleNotFoundError as error:
        print(
            f"jaxml: the command line needs the extra `jaxml[sweep]`: {error}.",
            file=sys.stderr,
        )
        return 2
    return cli.main(on_compiled=_raise_on_interrupt)


def _raise_on_interrupt() -> None:
    """Makes an interrupt raise KeyboardInterrupt, which ends training cleanly."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_interrupted(*_: Any) -> NoReturn:
    """Ends the process with one line and exit status 130."""
    sys.stdout.flush()
    print(
        "jaxml: interrupted; finished models are kept, and --resume continues the run",
        file=sys.stderr,
        flush=True,
    )
    # While JAX traces and compiles, an exception may be swallowed by a callback or
    # leave JAX in a broken state; os._exit raises none.
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
