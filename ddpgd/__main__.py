"""`python -m ddpgd` is `ddpgd`."""

import sys

from ddpgd.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
