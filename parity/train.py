"""`python -m parity.train` is `parity train`."""

import sys

from parity.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
