"""What linear probes find in real models, one module per showcase."""
