"""`preceptor demo`: the whole method on the nano world, on a laptop, in minutes."""
