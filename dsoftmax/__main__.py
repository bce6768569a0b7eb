"""`python -m dsoftmax` is the command `dsoftmax`."""

from dsoftmax.cli import main

main()
