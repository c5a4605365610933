"""`python -m bon`."""

from bon.cli.app import main

if __name__ == "__main__":
    main()
