"""Messages between factors and sites: the inside of `BP` and `LoopyBP`."""
