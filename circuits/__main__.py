"""`python -m circuits` is the command line `circuits`."""

from circuits.cli import main

main()
