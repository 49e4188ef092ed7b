"""`preceptor study`: grids of runs on the nano world, and the tables that come of them."""
