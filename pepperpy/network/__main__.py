"""`python -m pepperpy.network`: the command line, see `command/`."""

import sys

from pepperpy.network.command.main import main

if __name__ == "__main__":
    sys.exit(main())
