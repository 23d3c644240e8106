"""`python -m derainzoo`."""

from derainzoo.cli import main

if __name__ == "__main__":
    main()
