"""One file per attribution method; the file's name is the method's. Protocol: `circuits.attribute.Method`."""
