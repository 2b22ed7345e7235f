"""What experiments share: pictures and nets, files that are kept, numbers as text."""
