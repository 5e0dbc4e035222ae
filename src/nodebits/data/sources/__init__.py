"""Where data comes from, one file each: named sets, and files of one's own."""
