"""`python -m probes` is the command line `probes`."""

from probes.cli import main

main()
