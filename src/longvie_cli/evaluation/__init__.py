"""What finished frames say of themselves."""
