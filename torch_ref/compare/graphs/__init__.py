"""What a side does, as a graph of primitive operations."""
