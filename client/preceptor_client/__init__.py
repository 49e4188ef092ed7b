"""Preceptor's client: the contract, the SDK and the command line."""
