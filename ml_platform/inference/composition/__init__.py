"""Several models behind one endpoint: whether they fit together, and what is published of them."""
