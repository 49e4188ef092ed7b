"""`python -m preceptor_client`: the same as the console script `preceptor`."""

from preceptor_client.cli.main import main

main()
