#!/usr/bin/env python3
"""Measure strong and weak scaling: `ddpgd scaling` under its older name."""

import sys

from ddpgd.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["scaling", *sys.argv[1:]]))
