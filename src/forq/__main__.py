"""``python -m forq`` is ``forq``."""

from forq.cli import main

main()
