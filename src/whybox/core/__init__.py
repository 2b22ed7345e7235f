"""What every room of whybox uses; it imports no other room."""
