"""Models that come with the project: for each a folder of files, and the script that made them."""
