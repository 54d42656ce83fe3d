"""`python -m ddpgd` is `ddpgd`."""

import sys

from ddpgd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
