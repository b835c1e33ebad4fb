"""What a dataset holds: scans of every image, findings and changes of files."""
