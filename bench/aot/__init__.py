"""What programs cost on a device, read from what its compiler makes of them."""
