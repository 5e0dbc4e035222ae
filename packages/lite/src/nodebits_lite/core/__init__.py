"""What nodebits.lite shares with nodebits: the errors."""
