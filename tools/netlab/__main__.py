"""`python -m tools.netlab`."""

import sys

from tools.netlab.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
