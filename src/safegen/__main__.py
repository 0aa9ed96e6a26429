"""`python -m safegen`: the command line."""

from safegen.cli import main

if __name__ == "__main__":
    main()
