"""``python -m wsolkit`` is ``wsolkit``."""

from wsolkit.cli import main

if __name__ == "__main__":
    main()
