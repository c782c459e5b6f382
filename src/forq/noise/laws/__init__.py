"""Laws of the random direction z. One law, one file; the file is the registration."""
