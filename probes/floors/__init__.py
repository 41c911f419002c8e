"""One file per floor; the file's name is the floor's. Protocol: `probes.floor.Floor`."""
