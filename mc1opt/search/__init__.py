"""The search: Optuna lives here, and nothing below knows that it exists."""
