"""What happens when a mixing program is run, to compile it or as a Pyro model."""
