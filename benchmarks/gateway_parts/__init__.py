"""What `benchmarks.gateway` is made of: the engine behind the gateways, the gateways, the load."""
