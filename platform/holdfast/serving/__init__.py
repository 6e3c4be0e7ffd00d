"""The data plane: the gateway that takes requests, and the replica that answers them."""
