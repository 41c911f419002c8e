"""`python -m lens` is the command line `lens`."""

from lens.cli import main

main()
