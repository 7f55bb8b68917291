"""What `make docs` adds to the pages of this folder: the reference, made from the code, and pages from elsewhere."""
