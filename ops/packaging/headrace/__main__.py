"""`python -m headrace`: the command line, where its script is not on the path."""

from engine.cli import main

raise SystemExit(main())
