"""What is made of finished trials."""
