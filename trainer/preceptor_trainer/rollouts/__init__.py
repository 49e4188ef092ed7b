"""Policy engines: what samples the policy's continuations."""
