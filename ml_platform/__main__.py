"""The command `ml-platform`, which needs the extra `platform`: the server alone has no commands."""

import sys

from ml_platform.distribution import ExtraMissing, extra


def main() -> None:
    """Run the command line."""
    try:
        with extra("platform"):
            from ml_platform import cli
    except ExtraMissing as error:
        sys.exit(f"ml-platform: {error}")
    cli.main()


if __name__ == "__main__":
    main()
