"""The gradients against every peer a user could pick instead, and against the machine's limit."""
