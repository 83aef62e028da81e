"""Where a training happens: processes that train, and the pool of them."""
