"""What the contract's catalogue lists, and the ways in which tests hold a database against it."""
