"""What another package adds to nodebits."""
