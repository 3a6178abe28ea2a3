"""`python -m parity` is the console script `parity`."""

from parity.cli import main

if __name__ == "__main__":
    main()
