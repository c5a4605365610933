"""`python -m bon`."""

from bon.cli.entry import main

if __name__ == "__main__":
    main()
