"""python -m jaxml, and the command `jaxml`."""

import sys


def main() -> int:
    try:
        from jaxml import cli
    except ModuleNotFoundError as error:
        missing = f"jaxml: the command line needs the extra `jaxml[sweep]`: {error}."
        print(missing, file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
