"""`preceptor study thoughts`: does it pay to think before one goes on? On the hops, beside the nano world."""
