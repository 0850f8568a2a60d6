"""What is known of a measurement before it is restored: its noise, its sky, what the user states of it."""
