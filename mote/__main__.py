"""`python -m mote` is the command `mote`."""

from __future__ import annotations

import sys

from mote.cli import main

if __name__ == "__main__":
    sys.exit(main())
