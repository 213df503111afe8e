"""What puts ringtun's driver into a system, and takes it away again."""
