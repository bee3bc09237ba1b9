"""The module at work on real data; needs the extra `experiments`. Names are taken from the files."""
