"""`python -m longvie_cli` is the `longvie` command."""

from longvie_cli.cli.app import main

if __name__ == "__main__":
    main()
