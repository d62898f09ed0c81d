"""python -m jaxml, and the command `jaxml`."""

import os
import signal
import sys
from typing import Any, NoReturn


def main() -> int:
    signal.signal(signal.SIGINT, _leave)
    try:
        return _command()
    except KeyboardInterrupt:
        _leave()


def _command() -> int:
    try:
        from jaxml import cli
    except ModuleNotFoundError as error:
        missing = f"jaxml: the command line needs the extra `jaxml[sweep]`: {error}."
        print(missing, file=sys.stderr)
        return 2
    return cli.main(compiled=_raise)


def _raise() -> None:
    """From now on an interrupt is an exception, with which training ends cleanly."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: Any) -> NoReturn:
    """Ends at once: inside JAX an exception may be swallowed, or tear something."""
    sys.stdout.flush()
    saved = "what is finished is kept, and --resume goes on with it"
    print(f"jaxml: interrupted; {saved}", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
