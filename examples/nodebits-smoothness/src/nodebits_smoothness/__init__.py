"""Propagations that smooth less than APPNP: two layers with sites, and models of them."""
