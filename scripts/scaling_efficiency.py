#!/usr/bin/env python3
"""Measures strong and weak scaling: `ddpgd scaling` under its older name."""

import sys

from ddpgd.scaling.measure import main

if __name__ == "__main__":
    sys.exit(main())
