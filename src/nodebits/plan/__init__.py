"""Plans: a packed model's forward as steps over values of any size. See README.md here."""
