"""One file per estimator; the file's name is the estimator's. Protocol: `probes.estimator.Estimator`."""
