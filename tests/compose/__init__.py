"""The stack of docker-compose.yml, built, run and hit: `make test-compose`."""
