"""What refuses bad input at the library's doors: each check raises ValueError, and its sentence says for what."""
