"""What networks are fed, and how they learn."""
