"""Published and simple alternatives, written from their papers; one module each."""
