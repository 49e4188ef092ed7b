"""Documents and the windows cut from them."""
