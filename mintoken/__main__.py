"""`python -m mintoken`."""

from mintoken.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
