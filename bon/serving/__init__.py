"""Model servers over HTTP: what server scorers, server generators and judges share."""
